//! Commands from their submission until they are retired.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
};

use nbd::{
    client::{Descriptors, Pending, Request},
    proto,
};
use rustix::io::Errno;

use crate::{
    ChunkCallback, CompletionCallback, Extent, Extent64Callback, ExtentCallback, READ_DATA,
    READ_ERROR, READ_HOLE, ReadBuffer, WriteBuffer, error::Fault,
};

/// What the caller wants to hear while a command is under way.
pub(crate) enum Middle {
    None,
    Chunk(ChunkCallback),
    Extent(ExtentCallback),
    Extent64(Extent64Callback),
}

/// A command that is not completed.
pub(crate) struct Command {
    pub request: Request,
    pub pending: Pending,
    pub read: Option<Box<dyn ReadBuffer>>,
    pub write: Option<Box<dyn WriteBuffer>>,
    pub middle: Middle,
    pub completion: Option<CompletionCallback>,
    /// The caller waits and wants his buffer back.
    pub waited_for: bool,
    /// The first error, or 0.
    pub error: i32,
    /// Sending it has begun.
    pub begun: bool,
    /// Request and payload are sent.
    pub sent: bool,
    /// The reply has come, before the payload was sent.
    pub answered: bool,
    /// Extents of a chunk that has come in part.
    pub extents: Vec<Extent>,
}

/// A command that is completed and not retired.
struct Done {
    cookie: u64,
    command: u16,
    error: i32,
    /// One thread waits for it, and nobody else may retire it.
    waited_for: bool,
    read: Option<Box<dyn ReadBuffer>>,
}

/// All commands of a handle.
#[derive(Default)]
pub(crate) struct Flight {
    last_cookie: u64,
    commands: BTreeMap<u64, Command>,
    done: VecDeque<Done>,
}

impl Flight {
    /// The cookie for the next command. Cookies start at 1.
    pub fn next_cookie(&self) -> u64 {
        self.last_cookie + 1
    }

    /// Takes a command with the next cookie.
    pub fn add(&mut self, command: Command) -> u64 {
        let cookie = self.next_cookie();
        debug_assert_eq!(command.request.cookie, cookie);
        self.last_cookie = cookie;
        self.commands.insert(cookie, command);
        cookie
    }

    pub fn get(&mut self, cookie: u64) -> Option<&mut Command> {
        self.commands.get_mut(&cookie)
    }

    pub fn peek(&self, cookie: u64) -> Option<&Command> {
        self.commands.get(&cookie)
    }

    /// How many are not completed.
    pub fn in_flight(&self) -> usize {
        self.commands.len()
    }

    /// Length of the read that will be answered next, if servers keep the order.
    pub fn next_read(&self) -> usize {
        let first = self.commands.values().next();
        let read = first.filter(|command| command.request.command == proto::CMD_READ);
        read.map_or(0, |command| command.request.length as usize)
    }

    /// Completes a command, if its reply has come and its payload is sent.
    pub fn complete(&mut self, cookie: u64) {
        let Some(mut command) = self.commands.remove(&cookie) else {
            return;
        };
        let mut error = command.error;
        let mut told = error;
        let answer = match &mut command.completion {
            Some(completion) => completion(&mut told),
            None => 0,
        };
        if answer == -1 && told != 0 {
            error = told;
        }
        if answer != 1 {
            self.done.push_back(Done {
                cookie,
                command: command.request.command,
                error,
                waited_for: command.waited_for,
                read: command.read.take().filter(|_| command.waited_for),
            });
        }
        // Freed in this order.
        drop(command.middle);
        drop(command.completion);
    }

    /// Completes commands that will not be answered.
    pub fn abandon(&mut self, which: impl Fn(&Command) -> bool) {
        let some = self.commands.iter().filter(|(_, command)| which(command));
        let cookies: Vec<u64> = some.map(|(cookie, _)| *cookie).collect();
        for cookie in cookies {
            if let Some(command) = self.get(cookie) {
                command.fail(Errno::NOTCONN.raw_os_error());
            }
            self.complete(cookie);
        }
    }

    /// The first of those that the caller has to retire.
    pub fn first_done(&self) -> Option<u64> {
        let done = self.done.iter().find(|done| !done.waited_for);
        done.map(|done| done.cookie)
    }

    /// Retires a command that nobody waits for. False if it is not completed.
    pub fn retire(&mut self, cookie: u64) -> Result<bool, Fault> {
        let done = self.take_done(cookie, false).transpose()?;
        Ok(done.is_some())
    }

    /// Retires a command that was waited for, and gives its buffer back. `None` if it is not
    /// completed.
    pub fn collect(&mut self, cookie: u64) -> Option<Result<Option<Box<dyn ReadBuffer>>, Fault>> {
        self.take_done(cookie, true)
    }

    fn take_done(
        &mut self,
        cookie: u64,
        waited_for: bool,
    ) -> Option<Result<Option<Box<dyn ReadBuffer>>, Fault>> {
        let wanted = |done: &Done| done.cookie == cookie && done.waited_for == waited_for;
        let place = self.done.iter().position(wanted)?;
        let done = self.done.remove(place)?;
        Some(match done.error {
            0 => Ok(done.read),
            errno => {
                let name = command_name(done.command);
                Err(Fault::new(format!("{name}: command failed"), errno))
            }
        })
    }
}

impl Command {
    /// Takes note of an error; the first counts.
    pub fn fail(&mut self, errno: i32) {
        if self.error == 0 {
            self.error = errno;
        }
    }

    /// The place of this range of the export in the caller's memory. It was checked.
    pub fn place(&mut self, offset: u64, length: u64) -> &mut [u8] {
        let start = (offset - self.request.offset) as usize;
        let buffer: &mut [u8] = match &mut self.read {
            Some(buffer) => buffer.as_mut_slice(),
            None => &mut [],
        };
        &mut buffer[start..start + length as usize]
    }

    /// A part of a read is in its place.
    pub fn data(&mut self, offset: u64, length: u64) {
        let mut error = self.error;
        self.tell_chunk(offset, length, READ_DATA, &mut error);
    }

    /// A part of a read is zeroes.
    pub fn hole(&mut self, offset: u64, length: u64) {
        self.place(offset, length).fill(0);
        let mut error = self.error;
        self.tell_chunk(offset, length, READ_HOLE, &mut error);
    }

    /// The server reports an error, perhaps with its place.
    pub fn refused(&mut self, errno: i32, offset: Option<u64>) {
        if let Some(offset) = offset {
            let mut error = errno;
            self.tell_chunk(offset, 0, READ_ERROR, &mut error);
        }
        self.fail(errno);
    }

    fn tell_chunk(&mut self, offset: u64, length: u64, kind: u32, error: &mut i32) {
        let Middle::Chunk(mut chunk) = std::mem::replace(&mut self.middle, Middle::None) else {
            return;
        };
        let answer = chunk(self.place(offset, length), offset, kind, error);
        self.middle = Middle::Chunk(chunk);
        self.take_answer(answer, *error);
    }

    /// Keeps extents until all of their chunk have come.
    pub fn take_extents(&mut self, extents: Descriptors<'_>) {
        self.extents.extend(extents.map(|extent| Extent {
            length: extent.length,
            flags: extent.flags,
        }));
    }

    /// Tells of the extents of one context, which have all come.
    pub fn status(&mut self, context: &str) {
        let mut extents = std::mem::take(&mut self.extents);
        let mut error = self.error;
        let offset = self.request.offset;
        let answer = match &mut self.middle {
            Middle::Extent64(extent) => extent(context, offset, &mut extents, &mut error),
            Middle::Extent(extent) => {
                let (mut pairs, wide) = narrow(&extents);
                if wide && error == 0 {
                    error = Errno::OVERFLOW.raw_os_error();
                    self.error = error;
                }
                extent(context, offset, &mut pairs, &mut error)
            }
            Middle::Chunk(_) | Middle::None => 0,
        };
        self.take_answer(answer, error);
    }

    fn take_answer(&mut self, answer: i32, error: i32) {
        if answer == -1 {
            self.fail(match error {
                0 => Errno::PROTO.raw_os_error(),
                error => error,
            });
        }
    }
}

/// Longest extent that the call with 32 bits tells, in bytes: just below 4 GiB, and a multiple of every
/// block size.
const LONGEST: u32 = 0u32.wrapping_sub(64 << 20);

/// Pairs of 32 bits. A longer extent is cut, and ends them; flags that do not fit end them too, and are
/// told.
fn narrow(extents: &[Extent]) -> (Vec<u32>, bool) {
    let mut pairs = Vec::with_capacity(2 * extents.len());
    for extent in extents {
        let Ok(flags) = u32::try_from(extent.flags) else {
            return (pairs, true);
        };
        match u32::try_from(extent.length) {
            Ok(length) => pairs.extend([length, flags]),
            Err(_) => {
                pairs.extend([LONGEST, flags]);
                break;
            }
        }
    }
    (pairs, false)
}

fn command_name(command: u16) -> &'static str {
    match command {
        proto::CMD_READ => "read",
        proto::CMD_WRITE => "write",
        proto::CMD_FLUSH => "flush",
        proto::CMD_TRIM => "trim",
        proto::CMD_CACHE => "cache",
        proto::CMD_WRITE_ZEROES => "write-zeroes",
        proto::CMD_BLOCK_STATUS => "block-status",
        _ => "command",
    }
}

/// The buffer of a command that was waited for, as what it was given.
pub(crate) fn give_back<B: ReadBuffer>(buffer: Option<Box<dyn ReadBuffer>>) -> Option<B> {
    let any: Box<dyn Any> = buffer?;
    any.downcast::<B>().ok().map(|buffer| *buffer)
}
