//! The handshake over a stream, and what it says about the disk.

use block::{Error, ErrorKind, Limits, MAX_TRANSFER, Op, OpSet, Reactor, RecvBuf, Result, Support};
use nbd::{
    client::{Connected, Event, Failure, Handshake},
    proto,
};
use reactor::{SendBatch, Stream};
use transport::Transport;

use super::Terms;

/// Receives of a handshake, in bytes.
const BUFFER: usize = 16 << 10;

/// Haggles with a server; `told` hears of exports and contexts that are listed. The transport is
/// what the bytes go through from now on.
pub(super) async fn shake(
    reactor: &Reactor,
    stream: &Stream,
    terms: &Terms,
    mut told: impl FnMut(Event),
) -> Result<(Transport, Option<Connected>)> {
    let mut transport = Transport::Plain(stream.clone());
    let mut machine = Handshake::new(terms.options.clone()).map_err(refused)?;
    let mut buf = RecvBuf::new(reactor.chunk(BUFFER));
    loop {
        buf.rewind();
        let (back, received) = transport.recv(buf).await;
        buf = back;
        match received {
            Ok(0) => {
                let what = "the server closed the connection during the handshake";
                return Err(Error::new(ErrorKind::Io, what));
            }
            Ok(_) => {}
            Err(error) => return Err(Error::io("cannot receive from the server", error)),
        }
        loop {
            let mut out = Vec::new();
            let step = machine.input(buf.data(), &mut out);
            send(&transport, &out).await?;
            let (consumed, event) = step.map_err(refused)?;
            buf.consume(consumed);
            let connected = match event {
                None => break,
                Some(Event::StartTls) => {
                    transport = start_tls(reactor, stream, terms).await?;
                    let mut out = Vec::new();
                    let unread = buf.data().len();
                    machine.tls_started(unread, &mut out).map_err(refused)?;
                    send(&transport, &out).await?;
                    continue;
                }
                Some(Event::Connected(connected)) => Some(connected),
                Some(Event::Info(connected)) => Some(connected),
                Some(Event::Finished) => None,
                Some(other) => {
                    told(other);
                    continue;
                }
            };
            if !buf.data().is_empty() {
                let what = "the server sent replies before any request";
                return Err(Error::new(ErrorKind::Format, what));
            }
            return Ok((transport, connected));
        }
    }
}

/// Puts TLS between the server and us.
async fn start_tls(reactor: &Reactor, stream: &Stream, terms: &Terms) -> Result<Transport> {
    let cannot = |error| Error::new(ErrorKind::Permission, error);
    let connector = terms.connector.as_ref();
    let connector = connector.ok_or_else(|| cannot("there are no credentials for TLS".into()))?;
    let session = connector
        .connect()
        .map_err(|error| cannot(error.to_string()))?;
    let encrypted = Transport::encrypt(reactor, stream.clone(), session).await;
    let (transport, server) = encrypted.map_err(|error| cannot(error.to_string()))?;
    if let Some(name) = server.identity {
        tracing::debug!("the server is {name}");
    }
    Ok(transport)
}

async fn send(transport: &Transport, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut batch = SendBatch::new();
    batch.push_head(bytes);
    let sent = transport.send(batch).await.1;
    sent.map_err(|error| Error::io("cannot send to the server", error))
}

/// A failed handshake as an error of the control path.
fn refused(failure: Failure) -> Error {
    let kind = match &failure {
        Failure::Refused { code, .. } => match *code {
            proto::REP_ERR_UNKNOWN => ErrorKind::NotFound,
            proto::REP_ERR_POLICY | proto::REP_ERR_TLS_REQD => ErrorKind::Permission,
            proto::REP_ERR_SHUTDOWN => ErrorKind::Gone,
            _ => ErrorKind::Unsupported,
        },
        Failure::Violation(_) => ErrorKind::Format,
        Failure::BadName => ErrorKind::Config,
        _ => ErrorKind::Unsupported,
    };
    let error = Error::new(kind, failure.to_string());
    match failure {
        Failure::Refused {
            code: proto::REP_ERR_TLS_REQD,
            ..
        } => error.hint("this server wants TLS: nbds://, or tls=require"),
        _ => error,
    }
}

/// What a server says about its disk, in the words of the block layer.
///
/// # Errors
/// It contradicts itself.
pub(super) fn limits(connected: &Connected) -> Result<Limits> {
    let has = |flag| connected.flags & flag != 0;
    let selected = |name| connected.contexts.iter().any(|known| known.name == name);
    let writable = !has(proto::FLAG_READ_ONLY);
    let mut limits = Limits::new(connected.size, OpSet::of(&[Op::Read]));
    for (offered, op) in [
        (writable, Op::Write),
        (has(proto::FLAG_SEND_FLUSH), Op::Flush),
        (writable && has(proto::FLAG_SEND_TRIM), Op::Discard),
        (
            writable && has(proto::FLAG_SEND_WRITE_ZEROES),
            Op::WriteZeroes,
        ),
        (has(proto::FLAG_SEND_CACHE), Op::Cache),
        (selected(proto::CONTEXT_BASE_ALLOCATION), Op::Extents),
    ] {
        if offered {
            limits.set(op, Support::Native);
        }
    }
    if writable && !has(proto::FLAG_SEND_WRITE_ZEROES) {
        limits.set(Op::WriteZeroes, Support::Emulated);
    }
    limits.fua = match writable {
        true if has(proto::FLAG_SEND_FUA) => Support::Native,
        true if has(proto::FLAG_SEND_FLUSH) => Support::Emulated,
        _ => Support::None,
    };
    let zeroes = limits.support(Op::WriteZeroes) == Support::Native;
    limits.fast_zero = zeroes && has(proto::FLAG_SEND_FAST_ZERO);
    limits.multi_conn = has(proto::FLAG_CAN_MULTI_CONN);
    limits.rotational = has(proto::FLAG_ROTATIONAL);
    let contexts = connected.contexts.iter();
    let others = contexts.filter(|context| context.name != proto::CONTEXT_BASE_ALLOCATION);
    limits.contexts = others.map(|context| context.name.as_str().into()).collect();
    block_sizes(connected, &mut limits)?;
    if !connected.mode.is_extended() {
        // Lengths have 32 bits.
        let block = u64::from(limits.preferred_block);
        limits.max_range = u64::from(u32::MAX) / block * block;
    }
    if connected.size > i64::MAX as u64 {
        return Err(lies("its export is larger than 2^63 bytes"));
    }
    Ok(limits)
}

fn block_sizes(connected: &Connected, limits: &mut Limits) -> Result<()> {
    let Some(told) = connected.block_sizes else {
        return Ok(());
    };
    let sizes = nbd::server::BlockSizes::new(told.minimum, told.preferred, told.maximum);
    let Some(sizes) = sizes else {
        let nbd::client::BlockSizeInfo {
            minimum,
            preferred,
            maximum,
        } = told;
        return Err(lies(&format!(
            "its block sizes {minimum}, {preferred}, {maximum} are not allowed"
        )));
    };
    limits.min_block = sizes.minimum();
    limits.preferred_block = sizes.preferred();
    let whole = sizes.maximum() / sizes.minimum() * sizes.minimum();
    limits.max_transfer = whole.min(MAX_TRANSFER);
    if !connected.size.is_multiple_of(sizes.minimum().into()) {
        return Err(lies("its export's size is not a multiple of its blocks"));
    }
    Ok(())
}

fn lies(why: &str) -> Error {
    Error::new(ErrorKind::Format, format!("the server is wrong: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nbd::{Mode, client::BlockSizeInfo};

    fn told(size: u64, flags: u16, sizes: Option<[u32; 3]>, mode: Mode) -> Result<Limits> {
        let block_sizes = sizes.map(|[minimum, preferred, maximum]| BlockSizeInfo {
            minimum,
            preferred,
            maximum,
        });
        limits(&Connected {
            size,
            flags,
            block_sizes,
            name: None,
            description: None,
            mode,
            contexts: Vec::new(),
            tls: false,
        })
    }

    #[test]
    fn flags_become_abilities() {
        let bare = told(1 << 20, 0, None, Mode::Extended).unwrap();
        bare.assert_valid();
        assert_eq!(bare.support(Op::Write), Support::Native);
        assert_eq!(bare.support(Op::WriteZeroes), Support::Emulated);
        assert_eq!(
            (bare.support(Op::Flush), bare.fua),
            (Support::None, Support::None)
        );
        assert_eq!(bare.support(Op::Extents), Support::None);

        let flush = told(1 << 20, proto::FLAG_SEND_FLUSH, None, Mode::Extended).unwrap();
        assert_eq!(flush.fua, Support::Emulated);
        // Fast zeroes without zeroes are nothing.
        let fast = told(1 << 20, proto::FLAG_SEND_FAST_ZERO, None, Mode::Extended).unwrap();
        assert!(!fast.fast_zero);

        let reader = told(1 << 20, u16::MAX, None, Mode::Extended).unwrap();
        reader.assert_valid();
        assert!(reader.read_only() && !reader.fast_zero && reader.fua == Support::None);
        assert!(reader.multi_conn && reader.rotational);
    }

    #[test]
    fn lengths_fit_the_framing_and_the_blocks() {
        let sizes = Some([4096, 65536, (33 << 20) + 4096]);
        let compact = told(1 << 40, 0, sizes, Mode::Structured).unwrap();
        compact.assert_valid();
        assert_eq!((compact.min_block, compact.preferred_block), (4096, 65536));
        assert_eq!(compact.max_transfer, MAX_TRANSFER);
        assert_eq!(compact.max_range, (1 << 32) - 65536);
        let wide = told(1 << 40, 0, sizes, Mode::Extended).unwrap();
        assert_eq!(wide.max_range, u64::MAX);
        let largest = told(1 << 40, 0, Some([1, 1 << 31, u32::MAX]), Mode::Simple).unwrap();
        largest.assert_valid();
    }

    #[test]
    fn a_server_that_lies_is_refused() {
        let table = [
            (u64::MAX, None, "larger than 2^63"),
            (1 << 63, None, "larger than 2^63"),
            (4096, Some([0, 512, 512]), "0, 512, 512 are not allowed"),
            (4096, Some([3, 512, 512]), "not allowed"),
            (4096, Some([1, 4096, 512]), "not allowed"),
            (4095, Some([512, 512, 512]), "not a multiple"),
        ];
        for (size, sizes, why) in table {
            let error = told(size, 0, sizes, Mode::Extended).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
