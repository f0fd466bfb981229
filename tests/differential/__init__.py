"""The same operations on the host's tmpfs and on a running system, and what each says of them.

steps.py     the table of operations, and generators of hostile arguments for them
actor.py     one client: carries out steps, on `os` or on `system.files` alike
host.py      what `os` lacks of `system.files`, and a root of its own on a tmpfs
sides.py     all the clients of one side, as processes; the two sides side by side
compare.py   what is made of an answer before it is compared: the list of permitted differences
"""
