//! Drives the handshake machine over a stream until both sides agree on an export.
//!
//! STARTTLS exchanges the stream below the machine. All that was known or opened before is forgotten
//! by then: whoever asked for it in the clear may have been somebody else.

use std::sync::Arc;

use block::{Device, ErrorKind, RecvBuf, SharedBuf, SharedMem};
use nbd::{
    proto,
    server::{Event, Handshake, Negotiated, OpenRequest, Refused},
};
use reactor::SendBatch;
use transport::Transport;

use super::{info, server::Counters, session::Session};

/// What the two sides agreed on.
pub(super) struct Haggled {
    pub device: Arc<dyn Device>,
    pub negotiated: Negotiated,
    pub transport: Transport,
    /// May hold the first requests already.
    pub buf: RecvBuf,
}

/// A device that was opened to answer one option and may serve the next.
type Opened = Option<(String, Arc<dyn Device>)>;

/// Returns `None` when the client left, broke the rules or cannot be served.
pub(super) async fn haggle(
    session: &Session<'_>,
    mut transport: Transport,
    mut buf: RecvBuf,
) -> Option<Haggled> {
    let options = &session.member.server.options;
    if options.oldstyle {
        return oldstyle(session, transport, buf).await;
    }
    let mut machine = Handshake::new(options.negotiation());
    let mut opened: Opened = None;
    if !send(&transport, machine.greeting().to_vec()).await {
        return None;
    }
    loop {
        if buf.data().is_empty() {
            buf.rewind();
            let (back, received) = transport.recv(buf).await;
            buf = back;
            if !received.is_ok_and(|n| n > 0) {
                break;
            }
        }
        let mut out = Vec::new();
        let step = machine.input(buf.data(), &mut out);
        let mut verdict = Verdict::Go;
        match step {
            Err(violation) => verdict = broke_rules(session, &violation),
            Ok((consumed, event)) => {
                buf.consume(consumed);
                if let Some(event) = event {
                    let unread = buf.data().len();
                    verdict =
                        answer(session, &mut machine, event, unread, &mut opened, &mut out).await;
                }
            }
        }
        let sent = send(&transport, out).await;
        match verdict {
            Verdict::Go if sent => {}
            Verdict::StartTls(tls) if sent => match start_tls(session, &transport, *tls).await {
                Some(encrypted) => transport = encrypted,
                None => break,
            },
            Verdict::Serve(negotiated) if sent => {
                let (_, device) = opened.take().expect("an export was opened");
                return Some(Haggled {
                    device,
                    negotiated: *negotiated,
                    transport,
                    buf,
                });
            }
            _ => break,
        }
    }
    transport.close();
    close(session, opened).await;
    None
}

/// No haggling: the default export is opened, and told, right after accept.
async fn oldstyle(session: &Session<'_>, transport: Transport, buf: RecvBuf) -> Option<Haggled> {
    let server = &session.member.server;
    if let Err(error) = server.options.check() {
        tracing::error!("{error}");
        return None;
    }
    let device = match session.open("").await {
        Ok(device) => device,
        Err(error) => {
            Counters::add(&server.counters.refused);
            tracing::debug!("refused: {}", error.chain());
            return None;
        }
    };
    let info = info::export_info(&device.limits(), session.context("").access, "");
    match ::nbd::server::oldstyle(&server.options.negotiation(), &info) {
        Ok((greeting, negotiated)) => {
            if send(&transport, greeting.to_vec()).await {
                return Some(Haggled {
                    device,
                    negotiated,
                    transport,
                    buf,
                });
            }
        }
        Err(violation) => drop(broke_rules(session, &violation)),
    }
    close(session, Some((String::new(), device))).await;
    None
}

enum Verdict {
    Go,
    Leave,
    StartTls(Box<tls::Session>),
    Serve(Box<Negotiated>),
}

fn broke_rules(session: &Session<'_>, violation: &nbd::Violation) -> Verdict {
    Counters::add(&session.member.server.counters.violations);
    tracing::debug!("{violation}");
    Verdict::Leave
}

async fn answer(
    session: &Session<'_>,
    machine: &mut Handshake,
    event: Event,
    unread: usize,
    opened: &mut Opened,
    out: &mut Vec<u8>,
) -> Verdict {
    match event {
        Event::Abort => return Verdict::Leave,
        Event::StartTls => {
            let (tls, granted) = match credentials(session).await {
                Ok(tls) => (Some(tls), Ok(())),
                Err(refused) => (None, Err(refused)),
            };
            return match (machine.answer_start_tls(granted, unread, out), tls) {
                (Err(violation), _) => broke_rules(session, &violation),
                (Ok(()), None) => Verdict::Go,
                (Ok(()), Some(tls)) => {
                    close(session, opened.take()).await;
                    Verdict::StartTls(Box::new(tls))
                }
            };
        }
        Event::List => {
            let listed = session
                .member
                .server
                .source
                .exports(&session.context(""))
                .await;
            let names = listed.map_err(refused).map(|exports| {
                exports
                    .list
                    .into_iter()
                    .map(|e| (e.name, e.description.unwrap_or_default()))
            });
            machine.answer_list(names, out);
        }
        Event::MetaContext(request) => match device_for(session, opened, &request.name).await {
            Ok(device) => machine.answer_contexts(Ok(&info::contexts(&device.limits())), out),
            Err(refused) => machine.answer_contexts(Err(refused), out),
        },
        Event::Open(request) => return open(session, machine, &request, opened, out).await,
    }
    Verdict::Go
}

/// A fresh TLS session; reads files that have changed.
async fn credentials(session: &Session<'_>) -> Result<tls::Session, Refused> {
    let no = || Refused::new(proto::REP_ERR_POLICY, "TLS cannot be used at the moment");
    let tls = &session.member.server.options.tls;
    let acceptor = tls.acceptor().ok_or_else(no)?.clone();
    let made = session.reactor.blocking(move || acceptor.accept()).await;
    match made {
        Ok(Ok(tls)) => Ok(tls),
        Ok(Err(error)) => {
            tracing::debug!("{error}");
            Err(no())
        }
        Err(panicked) => {
            tracing::error!("{panicked}");
            Err(no())
        }
    }
}

/// Puts TLS between a client and the machine.
async fn start_tls(
    session: &Session<'_>,
    transport: &Transport,
    tls: tls::Session,
) -> Option<Transport> {
    match Transport::encrypt(session.reactor, transport.stream().clone(), tls).await {
        Ok((encrypted, peer)) => {
            session.identify(peer);
            Some(encrypted)
        }
        Err(error) => {
            Counters::add(&session.member.server.counters.tls_failures);
            tracing::debug!("{error}");
            None
        }
    }
}

async fn open(
    session: &Session<'_>,
    machine: &mut Handshake,
    request: &OpenRequest,
    opened: &mut Opened,
    out: &mut Vec<u8>,
) -> Verdict {
    let access = session.context(&request.name).access;
    let device = device_for(session, opened, &request.name).await;
    let described = device.map(|d| info::export_info(&d.limits(), access, &request.name));
    match machine.answer_open(described, out) {
        Ok(Some(negotiated)) => Verdict::Serve(Box::new(negotiated)),
        Ok(None) => Verdict::Go,
        Err(violation) => broke_rules(session, &violation),
    }
}

/// The device of an export: the one that an earlier option opened, if it asked for the same name.
async fn device_for(
    session: &Session<'_>,
    opened: &mut Opened,
    name: &str,
) -> Result<Arc<dyn Device>, Refused> {
    if let Some((_, device)) = opened.as_ref().filter(|(known, _)| known == name) {
        return Ok(device.clone());
    }
    close(session, opened.take()).await;
    let device = session.open(name).await.map_err(refused)?;
    *opened = Some((name.to_owned(), device.clone()));
    Ok(device)
}

async fn close(session: &Session<'_>, opened: Opened) {
    let Some((_, device)) = opened else { return };
    if let Err(error) = device.close(session.reactor).await {
        tracing::warn!(
            "client {}: closing its device: {}",
            session.member.id,
            error.chain()
        );
    }
}

fn refused(error: block::Error) -> Refused {
    let code = match error.kind() {
        ErrorKind::Permission => proto::REP_ERR_POLICY,
        ErrorKind::Gone => proto::REP_ERR_SHUTDOWN,
        _ => proto::REP_ERR_UNKNOWN,
    };
    tracing::debug!("cannot open an export: {}", error.chain());
    Refused::new(code, error.chain())
}

async fn send(transport: &Transport, bytes: Vec<u8>) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let len = bytes.len();
    let mut batch = SendBatch::new();
    batch.push_mem(SharedMem::of_shared(SharedBuf::from_vec(bytes), 0, len));
    transport.send(batch).await.1.is_ok()
}
