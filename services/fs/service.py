"""The file system: the namespace, files and directories, open files, locks.

What an operation does is in the classes below, one file each; what they share is in `filesystem.py`:

    opening.py  data.py        open files                 descriptions.py  the tables of open files
    paths.py                   names                      names.py         the rules of names
    attributes.py              what is known of a file    store.py         inodes and names
    locking.py                 locks                      database.py      their rows in SQLite
    namespace.py               mounts                     contents.py      blocks of files
    watching.py                changes                    walk.py          from a path to a file
                                                          volume.py        what is mounted: host.py, proc.py
                                                          fresh.py         contents that came with an opening
                                                          ahead.py         files that come before theirs

State: see docs/files.md. Everything survives the death of this service.
"""

from __future__ import annotations

from services.fs.attributes import AttributeOperations
from services.fs.data import Data
from services.fs.filesystem import STATE as STATE
from services.fs.locking import Locking
from services.fs.namespace import Namespace
from services.fs.opening import Opening
from services.fs.paths import Paths
from services.fs.watching import Watching
from services.stubs.fs import FsServer


class Service(Opening, Data, Paths, AttributeOperations, Locking, Namespace, Watching, FsServer):
    """Operations of the interface `fs`."""
