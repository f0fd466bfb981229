"""The dispatcher in C, its build script, and the checked model of its protocol."""
