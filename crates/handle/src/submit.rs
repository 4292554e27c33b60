//! From a call to a request: what is refused before it is sent, and why.

use nbd::{
    client::{Pending, Request, encode_raw_request, encode_status_request},
    proto,
};
use rustix::io::Errno;

use crate::{
    CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_PAYLOAD_LEN,
    CMD_FLAG_REQ_ONE, CompletionCallback, MAX_REQUEST, ReadBuffer, SIZE_MINIMUM, SIZE_PAYLOAD,
    STRICT_ALIGN, STRICT_AUTO_FLAG, STRICT_BOUNDS, STRICT_COMMANDS, STRICT_FLAGS, STRICT_PAYLOAD,
    STRICT_ZERO_SIZE, WriteBuffer,
    connect::already_leaving,
    error::Fault,
    flight::{Command, Middle},
    inner::Inner,
    settings::check_flags,
};

type Checked<T> = Result<T, Fault>;

/// A command as the caller wants it.
pub(crate) struct Wanted {
    pub command: u16,
    pub offset: u64,
    pub count: u64,
    pub flags: u32,
    pub read: Option<Box<dyn ReadBuffer>>,
    pub write: Option<Box<dyn WriteBuffer>>,
    /// Contexts to be told of, if not all.
    pub filter: Option<Vec<String>>,
    pub middle: Middle,
    pub completion: Option<CompletionCallback>,
    /// The caller waits, and wants his buffer back.
    pub waited_for: bool,
}

impl Wanted {
    pub fn new(command: u16, count: u64, offset: u64, flags: u32) -> Wanted {
        Wanted {
            command,
            offset,
            count,
            flags,
            read: None,
            write: None,
            filter: None,
            middle: Middle::None,
            completion: None,
            waited_for: false,
        }
    }

    /// Flags that belong to the command.
    fn flags(&self) -> u32 {
        match self.command {
            proto::CMD_READ if matches!(self.middle, Middle::Chunk(_)) => CMD_FLAG_DF,
            proto::CMD_WRITE => CMD_FLAG_FUA | CMD_FLAG_PAYLOAD_LEN,
            proto::CMD_TRIM => CMD_FLAG_FUA,
            proto::CMD_WRITE_ZEROES => CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
            proto::CMD_BLOCK_STATUS if self.filter.is_some() => {
                CMD_FLAG_REQ_ONE | CMD_FLAG_PAYLOAD_LEN
            }
            proto::CMD_BLOCK_STATUS => CMD_FLAG_REQ_ONE,
            _ => 0,
        }
    }

    fn changes_data(&self) -> bool {
        matches!(
            self.command,
            proto::CMD_WRITE | proto::CMD_TRIM | proto::CMD_WRITE_ZEROES
        )
    }
}

impl Inner {
    /// Takes a command and sends it, as far as the socket takes it. Returns its cookie.
    pub fn submit(&mut self, mut wanted: Wanted) -> Checked<u64> {
        let strict = self.settings().strict;
        let mask = match strict & STRICT_FLAGS {
            0 => u16::MAX.into(),
            _ => wanted.flags(),
        };
        check_flags("flags", wanted.flags, mask)?;
        if self.leaving {
            return Err(already_leaving());
        }
        if strict & STRICT_COMMANDS != 0 {
            self.check_offered(&wanted)?;
        }
        if wanted.command != proto::CMD_FLUSH {
            self.check_range(&wanted, strict)?;
        }
        let extended = self.negotiation.mode.is_extended();
        if strict & STRICT_AUTO_FLAG != 0 && wanted.command == proto::CMD_WRITE {
            wanted.flags &= !CMD_FLAG_PAYLOAD_LEN;
            if extended {
                wanted.flags |= CMD_FLAG_PAYLOAD_LEN;
            }
        }
        let request = Request {
            command: wanted.command,
            flags: wanted.flags as u16,
            cookie: self.flight.next_cookie(),
            offset: wanted.offset,
            length: wanted.count,
        };
        self.send_command(wanted, request)?;
        Ok(request.cookie)
    }

    fn send_command(&mut self, wanted: Wanted, request: Request) -> Checked<()> {
        let mode = self.negotiation.mode;
        let filter = wanted
            .filter
            .as_deref()
            .map(|names| self.filter_ids(names))
            .transpose()?;
        let contexts = match &filter {
            Some(ids) => ids.len(),
            None => self.negotiation.contexts.len(),
        };
        let head = encode_raw_request(mode, &request).ok_or_else(|| too_large(u32::MAX.into()))?;
        self.flight.add(Command {
            request,
            pending: Pending::new(&request, contexts as u32),
            read: wanted.read,
            write: wanted.write,
            middle: wanted.middle,
            completion: wanted.completion,
            waited_for: wanted.waited_for,
            error: 0,
            begun: false,
            sent: false,
            answered: false,
            extents: Vec::new(),
        });
        match filter {
            None => self.queue_request(request.cookie, head),
            Some(ids) => {
                let mut bytes = Vec::new();
                encode_status_request(&request, &ids, &mut bytes);
                self.queue_long_request(request.cookie, bytes);
            }
        }
        self.flush_or_fail();
        Ok(())
    }

    /// The numbers of these contexts.
    fn filter_ids(&self, names: &[String]) -> Checked<Vec<u32>> {
        let contexts = &self.negotiation.contexts;
        let id = |name: &String| {
            let found = contexts.iter().find(|context| context.name == *name);
            found.map(|context| context.id).ok_or_else(|| {
                Fault::invalid(format!(
                    "the server did not select the meta context {name:?}"
                ))
            })
        };
        names.iter().map(id).collect()
    }

    /// Refuses what the server does not offer.
    fn check_offered(&self, wanted: &Wanted) -> Checked<()> {
        let negotiation = &self.negotiation;
        let lacks = |flag: u16| negotiation.has(flag).map(|has| !has);
        let operation = match wanted.command {
            proto::CMD_FLUSH => Some((proto::FLAG_SEND_FLUSH, "flush")),
            proto::CMD_TRIM => Some((proto::FLAG_SEND_TRIM, "trim")),
            proto::CMD_WRITE_ZEROES => Some((proto::FLAG_SEND_WRITE_ZEROES, "zero")),
            proto::CMD_CACHE => Some((proto::FLAG_SEND_CACHE, "cache")),
            _ => None,
        };
        if let Some((flag, name)) = operation
            && lacks(flag)?
        {
            let text = format!("server does not support {name} operations");
            return Err(Fault::invalid(text));
        }
        if wanted.changes_data() && negotiation.has(proto::FLAG_READ_ONLY)? {
            let text = "server does not support write operations";
            return Err(Fault::of(text, Errno::PERM));
        }
        if wanted.command == proto::CMD_BLOCK_STATUS {
            self.check_status(wanted)?;
        }
        let flags = [
            (CMD_FLAG_FUA, proto::FLAG_SEND_FUA, "FUA"),
            (CMD_FLAG_FAST_ZERO, proto::FLAG_SEND_FAST_ZERO, "fast zero"),
            (CMD_FLAG_DF, proto::FLAG_SEND_DF, "DF"),
        ];
        for (flag, offered, name) in flags {
            if wanted.flags() & wanted.flags & flag != 0 && lacks(offered)? {
                let text = format!("server does not support the {name} flag");
                return Err(Fault::invalid(text));
            }
        }
        Ok(())
    }

    fn check_status(&self, wanted: &Wanted) -> Checked<()> {
        let negotiation = &self.negotiation;
        let unsupported = |text: &str| Err(Fault::of(text, Errno::NOTSUP));
        if wanted.filter.is_some() && !negotiation.mode.is_extended() {
            return unsupported("server does not support extended headers");
        }
        if wanted.filter.is_some() && !negotiation.has(proto::FLAG_BLOCK_STATUS_PAYLOAD)? {
            return unsupported("server does not support the block status payload flag");
        }
        if negotiation.contexts.is_empty() {
            return unsupported(
                "did not negotiate any metadata contexts, either you did not call \
                 nbd_add_meta_context before connecting or the server does not support it",
            );
        }
        Ok(())
    }

    fn check_range(&self, wanted: &Wanted, strict: u32) -> Checked<()> {
        let Wanted { offset, count, .. } = *wanted;
        let size = self.negotiation.size()?;
        if strict & STRICT_ZERO_SIZE != 0 && count == 0 {
            return Err(Fault::invalid("count cannot be 0"));
        }
        if strict & STRICT_BOUNDS != 0 && (offset > size || count > size - offset) {
            let errno = match wanted.changes_data() {
                true => Errno::NOSPC,
                false => Errno::INVAL,
            };
            return Err(Fault::of("request out of bounds", errno));
        }
        let minimum = u64::from(self.negotiation.block_size(SIZE_MINIMUM)?).max(1);
        let to_the_end = offset.checked_add(count) == Some(size);
        let aligned = offset % minimum == 0 && (count % minimum == 0 || to_the_end);
        if strict & STRICT_ALIGN != 0 && !aligned {
            return Err(Fault::invalid("request is unaligned"));
        }
        let has_payload = matches!(wanted.command, proto::CMD_READ | proto::CMD_WRITE);
        if has_payload && count > MAX_REQUEST {
            return Err(too_large(MAX_REQUEST));
        }
        if strict & STRICT_PAYLOAD != 0 && wanted.command == proto::CMD_WRITE {
            let most = self.negotiation.block_size(SIZE_PAYLOAD)?.into();
            if count > most {
                return Err(too_large(most));
            }
        }
        if !self.negotiation.mode.is_extended() && count > u32::MAX.into() {
            return Err(too_large(u32::MAX.into()));
        }
        Ok(())
    }
}

fn too_large(most: u64) -> Fault {
    let text = format!("request too large: maximum request size is {most}");
    Fault::of(text, Errno::RANGE)
}
