//! Files that are watched: one inotify descriptor each, on the directory, because the file may
//! come and go, and editors replace files instead of changing them.

use std::{ffi::OsString, mem::MaybeUninit, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use block::{Error, ErrorKind, Reactor, Result, host::Watch};
use reactor::Io;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Calls `f` on this reactor when the file at `path` appears, changes or goes; once for all that
/// happened in one turn.
pub(super) fn file(reactor: &Reactor, path: &Path, f: Box<dyn Fn()>) -> Result<Watch> {
    let shown = path.display().to_string();
    let name: OsString = path
        .file_name()
        .ok_or_else(|| Error::new(ErrorKind::Config, format!("'{shown}' names no file")))?
        .to_owned();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let cannot = |error: rustix::io::Errno| {
        Error::io(
            format!("cannot watch '{shown}'"),
            std::io::Error::from(error),
        )
    };
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(cannot)?;
    let what = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MODIFY
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, directory, what).map_err(cannot)?;
    let (fd, io) = (Arc::new(fd), Io::of(reactor));
    Ok(super::cancel::spawn(reactor, async move {
        loop {
            if let Err(error) = io.readable(&fd).await {
                return tracing::warn!("'{shown}' is not watched any more: {error}");
            }
            if touched(&fd, &name) {
                f();
            }
        }
    }))
}

/// Takes all events that wait; says whether one is about `name`, or may be.
fn touched(fd: &Arc<std::os::fd::OwnedFd>, name: &OsString) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let mut touched = false;
    while let Ok(event) = reader.next() {
        let about = event.file_name().map(|name| name.to_bytes());
        // Events were lost, or are about the directory itself: look rather than miss it.
        touched |= about.is_none_or(|about| about == name.as_bytes());
    }
    touched
}
