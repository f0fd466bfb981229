"""The core kernel: objects, access control, binding, scheduling, supervision, and the dispatcher in C."""
