"""Names in directories: making, striking, linking and renaming, in the order of checks that Linux has.

Each function gets a finished walk (`walk.Place`) and a transaction to do it in; they return once all is checked and
changed in memory and database, and the caller's transaction commits it.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.fs.permission import EXECUTE, READ, WRITE, may, new_mode, owns, require
from services.fs.store import Inode, Store, Transaction
from services.fs.volume import Remote
from services.fs.walk import Last, Node, Place

NOREPLACE, EXCHANGE = 1, 2


def local(node: Node) -> Inode:
    """A file on the device.

    Raises:
        ServiceError: EROFS, it is a volume's.
    """
    if isinstance(node, Remote):
        raise ServiceError(errno.EROFS)
    return node


class Names:
    """Changes of names; `is_open(ino)` says whether a file is open, so that its inode must stay."""

    def __init__(self, store: Store, is_open: Callable[[int], bool]) -> None:
        self._store = store
        self._is_open = is_open

    # ---- may it be done

    def may_create(self, who: Caller, place: Place, directory: bool = False) -> Inode:
        """The directory in which a name may be made.

        Raises:
            ServiceError: EEXIST, ENOENT (a slash at the end of what is no directory), EROFS, EACCES.
        """
        if place.last is not Last.NAME or place.node is not None:
            raise ServiceError(errno.EEXIST)
        if place.slash and not directory:
            raise ServiceError(errno.ENOENT)
        return self._may_enter(who, place)

    def _may_enter(self, who: Caller, place: Place) -> Inode:
        parent = local(place.parent)
        if not parent.nlink:
            raise ServiceError(errno.ENOENT)
        require(who, parent, WRITE | EXECUTE)
        return parent

    def _may_strike(self, who: Caller, parent: Inode, node: Inode, directory: bool) -> None:
        """Whether a caller may strike a name; `directory`: it must be one, else it must be none."""
        require(who, parent, WRITE | EXECUTE)
        if parent.mode & stat.S_ISVTX and not owns(who, node) and not owns(who, parent):
            raise ServiceError(errno.EPERM)
        if directory and not node.is_directory:
            raise ServiceError(errno.ENOTDIR)
        if not directory and node.is_directory:
            raise ServiceError(errno.EISDIR)

    # ---- making

    def make(
        self,
        change: Transaction,
        who: Caller,
        place: Place,
        parent: Inode,
        mode: int,
        rdev: int = 0,
        target: bytes = b"",
    ) -> Inode:
        """A new file under a name for which `may_create` gave the directory."""
        mode, group = new_mode(who, parent, mode)
        made = change.make(mode, who.uid, group, rdev, parent.ino if stat.S_ISDIR(mode) else 0, target)
        return self.enter_new(change, parent, place.name, made)

    def enter_new(self, change: Transaction, parent: Inode, name: bytes, made: Inode) -> Inode:
        """Give a new file its first name."""
        change.enter(parent, name, made)
        made.nlink = 1
        if made.is_directory:
            made.nlink = 2
            parent.nlink += 1
        return made

    def link(self, change: Transaction, who: Caller, node: Inode, place: Place, parent: Inode) -> None:
        """One more name for a file."""
        change.touch(node)
        change.enter(parent, place.name, node)
        node.nlink += 1
        node.ctime = change.now

    def may_link(self, who: Caller, node: Inode) -> None:
        """Whether a caller may give a file one more name (as with Linux's protected_hardlinks)."""
        if owns(who, node):
            return
        harmless = (
            node.is_regular
            and not node.mode & stat.S_ISUID
            and node.mode & (stat.S_ISGID | stat.S_IXGRP) != stat.S_ISGID | stat.S_IXGRP
            and may(who, node, READ | WRITE)
        )
        if not harmless:
            raise ServiceError(errno.EPERM)

    # ---- striking

    def unlink(self, change: Transaction, who: Caller, place: Place) -> Inode:
        """Strike the name of what is no directory; the file, which may have gone with it."""
        if place.last is not Last.NAME:
            raise ServiceError(errno.EISDIR)
        if place.node is None:
            raise ServiceError(errno.ENOENT)
        if place.slash:
            raise ServiceError(errno.EISDIR if place.node.is_directory else errno.ENOTDIR)
        node, parent = local(place.node), local(place.parent)
        self._may_strike(who, parent, node, directory=False)
        change.strike(parent, place.name)
        self._dropped(change, node)
        return node

    def remove_directory(self, change: Transaction, who: Caller, place: Place) -> Inode:
        """Remove an empty directory."""
        refusals = {Last.DOTDOT: errno.ENOTEMPTY, Last.DOT: errno.EINVAL, Last.ROOT: errno.EBUSY}
        if place.last in refusals:
            raise ServiceError(refusals[place.last])
        if place.node is None:
            raise ServiceError(errno.ENOENT)
        if isinstance(place.node, Remote) and isinstance(place.parent, Inode):
            raise ServiceError(errno.EBUSY)  # something is mounted there
        node, parent = local(place.node), local(place.parent)
        self._may_strike(who, parent, node, directory=True)
        if not self._store.is_empty(node):
            raise ServiceError(errno.ENOTEMPTY)
        change.strike(parent, place.name)
        parent.nlink -= 1
        self._dropped(change, node)
        return node

    def _dropped(self, change: Transaction, node: Inode) -> None:
        """A file has lost a name: without one, and not open, it goes."""
        change.touch(node)
        node.nlink = 0 if node.is_directory else node.nlink - 1
        node.ctime = change.now
        if not node.nlink and not self._is_open(node.ino):
            change.erase(node)

    # ---- renaming

    def rename(self, change: Transaction, who: Caller, old: Place, new: Place, flags: int) -> bool:
        """Rename; False when both names are the same file's, so that nothing is to be done."""
        self._may_name(old, new, flags)
        if old.node is None:
            raise ServiceError(errno.ENOENT)
        if flags & NOREPLACE and new.node is not None:
            raise ServiceError(errno.EEXIST)
        if flags & EXCHANGE and new.node is None:
            raise ServiceError(errno.ENOENT)
        self._refuse_slashes(old, new, flags)
        self._refuse_loops(old, new, flags)
        mounted = any(isinstance(p.node, Remote) for p in (old, new))
        source, target = old.node, new.node
        if source is target and not mounted:
            return False
        from_parent, to_parent = local(old.parent), local(new.parent)
        if mounted:
            raise ServiceError(errno.EBUSY)
        source = local(source)
        target = None if target is None else local(target)
        self._may_rename(who, from_parent, to_parent, source, target, new, flags)
        if flags & EXCHANGE and target is not None:
            self._exchange(change, old, new, source, target)
        else:
            self._replace(change, old, new, source, target)
        return True

    def _may_name(self, old: Place, new: Place, flags: int) -> None:
        parents = old.parent, new.parent
        if isinstance(old.parent, Remote) != isinstance(new.parent, Remote):
            raise ServiceError(errno.EXDEV)
        if all(isinstance(p, Remote) for p in parents) and _volume(old.parent) is not _volume(new.parent):
            raise ServiceError(errno.EXDEV)
        if old.last is not Last.NAME:
            raise ServiceError(errno.EBUSY)
        if new.last is not Last.NAME:
            raise ServiceError(errno.EEXIST if flags & NOREPLACE else errno.EBUSY)
        for parent in parents:
            local(parent)

    def _refuse_slashes(self, old: Place, new: Place, flags: int) -> None:
        if flags & EXCHANGE and new.slash and new.node is not None and not new.node.is_directory:
            raise ServiceError(errno.ENOTDIR)
        if old.node is not None and not old.node.is_directory and (old.slash or (new.slash and not flags & EXCHANGE)):
            raise ServiceError(errno.ENOTDIR)

    def _refuse_loops(self, old: Place, new: Place, flags: int) -> None:
        """A directory cannot move below itself, nor replace what it is below."""
        if isinstance(old.node, Inode) and self._is_above(old.node, local(new.parent)):
            raise ServiceError(errno.EINVAL)
        if isinstance(new.node, Inode) and self._is_above(new.node, local(old.parent)):
            raise ServiceError(errno.EINVAL if flags & EXCHANGE else errno.ENOTEMPTY)

    def _is_above(self, node: Inode, directory: Inode) -> bool:
        if not node.is_directory:
            return False
        while directory.ino != directory.parent:
            if directory is node:
                return True
            directory = self._store.inode(directory.parent)
        return directory is node

    def _may_rename(
        self,
        who: Caller,
        from_parent: Inode,
        to_parent: Inode,
        source: Inode,
        target: Inode | None,
        new: Place,
        flags: int,
    ) -> None:
        self._may_strike(who, from_parent, source, source.is_directory)
        if target is None:
            self._may_enter(who, new)
        else:
            exchanged = target.is_directory if flags & EXCHANGE else source.is_directory
            self._may_strike(who, to_parent, target, exchanged)
        if from_parent is not to_parent:
            for moved in (source, target if flags & EXCHANGE else None):
                if moved is not None and moved.is_directory:
                    require(who, moved, WRITE)
        if target is not None and not flags & EXCHANGE and target.is_directory and not self._store.is_empty(target):
            raise ServiceError(errno.ENOTEMPTY)

    def _replace(self, change: Transaction, old: Place, new: Place, source: Inode, target: Inode | None) -> None:
        from_parent, to_parent = local(old.parent), local(new.parent)
        change.touch(source, from_parent, to_parent)
        change.strike(from_parent, old.name)
        if target is not None:
            change.strike(to_parent, new.name)
            if target.is_directory:
                to_parent.nlink -= 1
            self._dropped(change, target)
        change.enter(to_parent, new.name, source)
        source.ctime = change.now
        self._moved(source, from_parent, to_parent)

    def _moved(self, node: Inode, from_parent: Inode, to_parent: Inode) -> None:
        if node.is_directory and from_parent is not to_parent:
            node.parent = to_parent.ino
            from_parent.nlink -= 1
            to_parent.nlink += 1

    def _exchange(self, change: Transaction, old: Place, new: Place, source: Inode, target: Inode) -> None:
        from_parent, to_parent = local(old.parent), local(new.parent)
        change.touch(source, target, from_parent, to_parent)
        change.strike(from_parent, old.name)
        change.strike(to_parent, new.name)
        change.enter(from_parent, old.name, target)
        change.enter(to_parent, new.name, source)
        source.ctime = target.ctime = change.now
        self._moved(source, from_parent, to_parent)
        self._moved(target, to_parent, from_parent)


def _volume(node: Node) -> object:
    return node.volume if isinstance(node, Remote) else None
