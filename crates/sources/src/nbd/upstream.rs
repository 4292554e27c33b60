//! A server as it was configured: where it is, how connections are encrypted, what is asked of it.

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use block::{Error, ErrorKind, Reactor, Result};
use nbd::{
    Mode,
    client::{ClientOptions, Connected, Event, Goal},
    proto,
    uri::{PORT, Uri},
};

use super::{
    HANDSHAKE, NbdConfig, Settings, Terms, attach,
    device::NbdDevice,
    dial::{Dial, Dialer, Place},
    hello,
    secrecy::Secrecy,
    too_slow, within,
};

/// A server that nothing was asked of yet.
///
/// For programs that want to know more of a server than a disk shows; as a source of blocks it is
/// what [`new`](super::new) makes of the same configuration.
pub struct Upstream {
    name: Arc<str>,
    dialer: Arc<dyn Dial>,
    secrecy: Secrecy,
    export: String,
    contexts: Vec<String>,
    settings: Settings,
}

impl Upstream {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// `Config`, if the URI or what is said about TLS is wrong; `Io`, if the descriptor is not open.
    pub fn new(config: &NbdConfig) -> Result<Upstream> {
        let name: Arc<str> = "nbd".into();
        let wrong = |why: String| Error::new(ErrorKind::Config, why).in_node(&name);
        let uri = config.uri.as_deref().map(str::parse::<Uri>).transpose();
        let uri = uri.map_err(|error| wrong(error.to_string()))?;
        let secrecy = Secrecy::of(config, uri.as_ref()).map_err(|error| error.in_node(&name))?;
        let in_uri = uri.as_ref().map(|uri| uri.export.clone());
        if config.export.is_some() && in_uri.as_ref().is_some_and(|export| !export.is_empty()) {
            return Err(wrong(
                "export is given twice: in the URI, and by export=".into(),
            ));
        }
        let export = config.export.clone().or(in_uri).unwrap_or_default();
        Ok(Upstream {
            name: name.clone(),
            dialer: Arc::new(Dialer(Arc::new(place(config, uri)?))),
            secrecy,
            export,
            contexts: config.context.clone(),
            settings: Settings {
                connections: config.connections as usize,
                reconnect_delay: config.reconnect_delay,
                timeout: config.timeout,
            },
        })
    }

    /// The source's name, for errors.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Name of the export that is meant.
    pub fn export(&self) -> &str {
        &self.export
    }

    /// Asks something on a connection of its own, which is over afterwards. `told` hears of what is
    /// listed; with [`Goal::Info`] the answer is what the export is like.
    ///
    /// # Errors
    /// The server cannot be reached, says no, or breaks the protocol.
    pub async fn ask(
        &self,
        reactor: &Reactor,
        options: ClientOptions,
        told: impl FnMut(Event),
    ) -> Result<Option<Connected>> {
        let terms = self.terms(options);
        let asked = within(reactor, HANDSHAKE, async {
            let dialed = self.dialer.dial(reactor).await?;
            let shaken = hello::shake(reactor, &dialed.stream, &terms, told).await;
            if let Some(server) = dialed.server {
                server.end(reactor);
            }
            let (transport, answer) = shaken?;
            transport.close();
            Ok(answer)
        });
        let answer: Result<_> = asked.await.unwrap_or_else(|| Err(too_slow()));
        answer.map_err(|error| error.in_node(&self.name))
    }

    /// Opens an export as a disk.
    pub(super) async fn open(&self, reactor: &Reactor, export: &str) -> Result<Arc<NbdDevice>> {
        let base = [proto::CONTEXT_BASE_ALLOCATION.to_owned()];
        let contexts = base.into_iter().chain(self.contexts.iter().cloned());
        let options = ClientOptions {
            export: export.to_owned(),
            goal: Goal::Go,
            mode: Mode::Extended,
            contexts: contexts.collect(),
            ..ClientOptions::default()
        };
        let terms = self.terms(options);
        attach(
            reactor,
            &self.name,
            self.dialer.clone(),
            terms,
            self.settings,
        )
        .await
    }

    fn terms(&self, options: ClientOptions) -> Terms {
        Terms {
            options: ClientOptions {
                tls: self.secrecy.wanted,
                ..options
            },
            connector: self.secrecy.connector.clone(),
        }
    }
}

fn place(config: &NbdConfig, uri: Option<Uri>) -> Result<Place> {
    if let Some(uri) = uri {
        return Ok(Place::of_uri(uri.transport));
    }
    if let Some(path) = &config.socket {
        return Ok(Place::Unix(crate::file::absolute(path)?));
    }
    if let Some(host) = &config.hostname {
        return Ok(Place::Tcp {
            host: host.clone(),
            port: config.port.map_or(PORT, |port| port as u16),
        });
    }
    if let Some(cid) = config.vsock {
        return Ok(Place::Vsock {
            cid,
            port: config.port.unwrap_or(PORT.into()),
        });
    }
    if let Some(number) = config.socket_fd {
        let socket: OwnedFd = reactor::process::inherited_descriptor(number)
            .map_err(|error| Error::io(format!("cannot use socket-fd={number}"), error))?;
        return Ok(Place::Socket(Mutex::new(Some(socket))));
    }
    let program = config.command.iter().map(OsString::from);
    let arguments = config.arg.iter().map(OsString::from);
    Ok(Place::Command(program.chain(arguments).collect()))
}
