"""What programs use to reach a running system.

import shim
system = shim.attach("demo")        # or shim.attach() in a program started by `launcher.py run`
system.example.digest(b"...")
"""

from shim.client import System, attach

__all__ = ["System", "attach"]
