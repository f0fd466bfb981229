"""What stands behind the launcher's commands: each module serves one or two of them, as a client of the system.

Nothing here has authority of its own. `up` and `run` launch a system through `corekernel.boot`; all else attaches
through the shim like any program and asks the core, which decides by the host's credentials.
"""
