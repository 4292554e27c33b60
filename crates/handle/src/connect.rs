//! Getting a connection, and ending it.

use std::{ffi::OsString, os::fd::OwnedFd, path::Path, sync::Arc};

use nbd::{
    client::{Request, encode_request},
    proto,
};
use rustix::{io::Errno, net::SocketAddrAny};

use crate::{
    Error, Handle, Result, SHUTDOWN_ABANDON_PENDING, SHUTDOWN_MASK,
    child::Child,
    dial::{Dialing, Target, adopt},
    error::Fault,
    inner::Inner,
    settings::check_flags,
    state::{Permitted, State},
    uri::{Place, Way, follow},
};

/// Why a socket that was handed over leads to no connection.
#[derive(Debug)]
pub struct SocketError {
    /// What is wrong.
    pub error: Error,
    /// The socket, if the handle did not take it. It is the caller's again.
    pub socket: Option<OwnedFd>,
}

impl Inner {
    /// Begins to connect to a place that a URI can tell.
    fn go_to(&mut self, place: Place) -> std::result::Result<(), Fault> {
        let dialing = match &place {
            Place::Tcp { host, port } => Dialing::tcp(host, port)?,
            Place::Address(address) => Dialing::one(Target::Any((*address).into())),
            Place::Unix(path) => Dialing::unix(path)?,
            Place::Vsock { cid, port } => Dialing::vsock(*cid, *port),
        };
        self.place = Some(place);
        self.dial(dialing)
    }

    fn go_by_uri(&mut self, uri: &str) -> std::result::Result<(), Fault> {
        let way = follow(uri, &mut self.settings())?;
        match way {
            Way::Place(place) => self.go_to(place),
            Way::Command(argv) => self.go_by_command(&argv),
        }
    }

    fn go_by_command(&mut self, argv: &[OsString]) -> std::result::Result<(), Fault> {
        let (child, socket) = self.started(argv, Child::on_stdio)?;
        adopt(&socket)?;
        self.child = Some(child);
        self.talk(Arc::new(socket));
        Ok(())
    }

    fn go_by_activation(&mut self, argv: &[OsString]) -> std::result::Result<(), Fault> {
        let name = self.settings().socket_activation_name.clone();
        let (child, path) = self.started(argv, |argv| Child::by_activation(argv, &name))?;
        self.child = Some(child);
        self.go_to(Place::Unix(path))
    }

    /// A server that cannot be started ends the handle, as one that starts and dies does.
    fn started<T>(
        &mut self,
        argv: &[OsString],
        start: impl FnOnce(&[OsString]) -> std::io::Result<T>,
    ) -> std::result::Result<T, Fault> {
        let Some(program) = argv.first() else {
            return Err(Fault::invalid("missing command name in argv list"));
        };
        start(argv).map_err(|error| {
            self.end(State::Dead);
            let text = format!("cannot start the server {}", program.display());
            Fault::new(text, error.raw_os_error().unwrap_or(0))
        })
    }

    /// Tells the server that we leave.
    fn disconnect(&mut self) -> std::result::Result<(), Fault> {
        if self.leaving {
            return Err(already_leaving());
        }
        let request = Request {
            command: proto::CMD_DISC,
            flags: 0,
            cookie: 0,
            offset: 0,
            length: 0,
        };
        let head = encode_request(self.negotiation.mode, &request);
        self.leaving = true;
        self.queue_request(0, head.expect("a length of 0 fits"));
        self.flush_or_fail();
        Ok(())
    }

    /// Sends what can be sent; a connection that fails by that is told of by its commands.
    pub(crate) fn flush_or_fail(&mut self) {
        if let Err(fault) = self.flush() {
            self.debug(format_args!("sending failed: {}", fault.text));
            self.fail();
        }
    }
}

/// Nothing can be asked of a server that we have left.
pub(crate) fn already_leaving() -> Fault {
    Fault::invalid("cannot request more commands after NBD_CMD_DISC")
}

/// Each way to connect comes as a call that waits until the handle is ready, or negotiating in opt mode, and as one that
/// only begins (`aio_`): then the handle is connecting until it is there.
impl Handle {
    fn begin(
        &self,
        call: &'static str,
        shown: std::fmt::Arguments<'_>,
        work: impl FnOnce(&mut Inner) -> std::result::Result<(), Fault>,
    ) -> Result<()> {
        self.call(call, Permitted::CREATED, shown, work)
    }

    /// Waits until the handshake is done.
    fn arrive(&self, call: &'static str) -> Result<()> {
        self.wait(call, |inner| match inner.state {
            State::Negotiating => Some(Ok(())),
            state if state.is_connected() => Some(Ok(())),
            state if state.is_connecting() => None,
            state => {
                let text = format!("the connection ended: {}", state.name());
                Some(Err(Fault::of(text, Errno::NOTCONN)))
            }
        })
    }

    /// `nbd_connect_uri`.
    ///
    /// # Errors
    ///
    /// The URI is wrong or not allowed, or leads to no server.
    pub fn connect_uri(&self, uri: &str) -> Result<()> {
        let call = "nbd_connect_uri";
        self.begin(call, format_args!("uri={uri:?}"), |inner| {
            inner.go_by_uri(uri)
        })?;
        self.arrive(call)
    }

    /// `nbd_aio_connect_uri`.
    ///
    /// # Errors
    ///
    /// As with [`connect_uri`](Handle::connect_uri), as far as it is known.
    pub fn aio_connect_uri(&self, uri: &str) -> Result<()> {
        let call = "nbd_aio_connect_uri";
        self.begin(call, format_args!("uri={uri:?}"), |inner| {
            inner.go_by_uri(uri)
        })
    }

    /// `nbd_connect_unix`.
    ///
    /// # Errors
    ///
    /// There is no server.
    pub fn connect_unix(&self, path: &Path) -> Result<()> {
        self.connect_to("nbd_connect_unix", Place::Unix(path.to_owned()))
    }

    /// `nbd_aio_connect_unix`.
    ///
    /// # Errors
    ///
    /// As with [`connect_unix`](Handle::connect_unix).
    pub fn aio_connect_unix(&self, path: &Path) -> Result<()> {
        self.begin_to("nbd_aio_connect_unix", Place::Unix(path.to_owned()))
    }

    /// `nbd_connect_vsock`.
    ///
    /// # Errors
    ///
    /// There is no server, or no vsock.
    pub fn connect_vsock(&self, cid: u32, port: u32) -> Result<()> {
        self.connect_to("nbd_connect_vsock", Place::Vsock { cid, port })
    }

    /// `nbd_aio_connect_vsock`.
    ///
    /// # Errors
    ///
    /// As with [`connect_vsock`](Handle::connect_vsock), as far as it is known.
    pub fn aio_connect_vsock(&self, cid: u32, port: u32) -> Result<()> {
        self.begin_to("nbd_aio_connect_vsock", Place::Vsock { cid, port })
    }

    /// `nbd_connect_tcp`. `port` is a number or the name of a service. Every address of the host is tried.
    ///
    /// # Errors
    ///
    /// There is no server.
    pub fn connect_tcp(&self, host: &str, port: &str) -> Result<()> {
        self.connect_to("nbd_connect_tcp", tcp(host, port))
    }

    /// `nbd_aio_connect_tcp`. The name of the host is looked up before it returns.
    ///
    /// # Errors
    ///
    /// As with [`connect_tcp`](Handle::connect_tcp), as far as it is known.
    pub fn aio_connect_tcp(&self, host: &str, port: &str) -> Result<()> {
        self.begin_to("nbd_aio_connect_tcp", tcp(host, port))
    }

    fn begin_to(&self, call: &'static str, place: Place) -> Result<()> {
        let settings = self.shared.settings();
        let uri = place.uri(&settings);
        drop(settings);
        self.begin(call, format_args!("{uri}"), |inner| inner.go_to(place))
    }

    fn connect_to(&self, call: &'static str, place: Place) -> Result<()> {
        self.begin_to(call, place)?;
        self.arrive(call)
    }

    /// `nbd_aio_connect`.
    ///
    /// # Errors
    ///
    /// There is no server, as far as it is known.
    pub fn aio_connect(&self, address: &SocketAddrAny) -> Result<()> {
        let dialing = Dialing::one(Target::Any(address.clone()));
        let none = format_args!("");
        self.begin("nbd_aio_connect", none, |inner| {
            inner.place = Place::of(address);
            inner.dial(dialing)
        })
    }

    /// `nbd_connect_socket`.
    ///
    /// # Errors
    ///
    /// The socket is given back if it was not taken.
    pub fn connect_socket(&self, socket: OwnedFd) -> std::result::Result<(), SocketError> {
        let call = "nbd_connect_socket";
        self.begin_socket(call, socket)?;
        self.arrive(call).map_err(|error| SocketError {
            error,
            socket: None,
        })
    }

    /// `nbd_aio_connect_socket`.
    ///
    /// # Errors
    ///
    /// The socket is given back if it was not taken.
    pub fn aio_connect_socket(&self, socket: OwnedFd) -> std::result::Result<(), SocketError> {
        self.begin_socket("nbd_aio_connect_socket", socket)
    }

    fn begin_socket(
        &self,
        call: &'static str,
        socket: OwnedFd,
    ) -> std::result::Result<(), SocketError> {
        let mut socket = Some(socket);
        let result = self.begin(call, format_args!("sock"), |inner| {
            if let Some(ours) = &socket {
                adopt(ours)?;
            }
            if let Some(ours) = socket.take() {
                inner.talk(Arc::new(ours));
            }
            Ok(())
        });
        result.map_err(|error| SocketError { error, socket })
    }

    /// `nbd_connect_command`.
    ///
    /// # Errors
    ///
    /// The server cannot be started, or is none.
    pub fn connect_command(&self, argv: &[OsString]) -> Result<()> {
        let call = "nbd_connect_command";
        self.begin(call, format_args!("argv={argv:?}"), |inner| {
            inner.go_by_command(argv)
        })?;
        self.arrive(call)
    }

    /// `nbd_aio_connect_command`.
    ///
    /// # Errors
    ///
    /// The server cannot be started.
    pub fn aio_connect_command(&self, argv: &[OsString]) -> Result<()> {
        let call = "nbd_aio_connect_command";
        self.begin(call, format_args!("argv={argv:?}"), |inner| {
            inner.go_by_command(argv)
        })
    }

    /// `nbd_connect_systemd_socket_activation`. The server's standard input is `/dev/null`.
    ///
    /// # Errors
    ///
    /// The server cannot be started, or is none.
    pub fn connect_systemd_socket_activation(&self, argv: &[OsString]) -> Result<()> {
        let call = "nbd_connect_systemd_socket_activation";
        self.begin(call, format_args!("argv={argv:?}"), |inner| {
            inner.go_by_activation(argv)
        })?;
        self.arrive(call)
    }

    /// `nbd_aio_connect_systemd_socket_activation`.
    ///
    /// # Errors
    ///
    /// The server cannot be started.
    pub fn aio_connect_systemd_socket_activation(&self, argv: &[OsString]) -> Result<()> {
        let call = "nbd_aio_connect_systemd_socket_activation";
        self.begin(call, format_args!("argv={argv:?}"), |inner| {
            inner.go_by_activation(argv)
        })
    }
}

fn tcp(host: &str, port: &str) -> Place {
    Place::Tcp {
        host: host.to_owned(),
        port: port.to_owned(),
    }
}

/// The end, the child, and the way back.
impl Handle {
    /// `nbd_kill_subprocess`. A signal of 0 is SIGTERM.
    ///
    /// # Errors
    ///
    /// There is no child (`ESRCH`), or the signal is none.
    pub fn kill_subprocess(&self, signal: i32) -> Result<()> {
        let call = "nbd_kill_subprocess";
        let shown = format_args!("signum={signal}");
        self.call(call, Permitted::ALWAYS, shown, |inner| {
            let child = inner.child.as_mut().ok_or_else(no_child)?;
            let number = if signal == 0 { 15 } else { signal };
            child
                .signal(number)
                .map_err(|error| Fault::of("kill", error))
        })
    }

    /// `nbd_get_subprocess_pid`.
    ///
    /// # Errors
    ///
    /// There is no child (`ESRCH`).
    pub fn get_subprocess_pid(&self) -> Result<i64> {
        let call = "nbd_get_subprocess_pid";
        self.call(call, Permitted::ALWAYS, format_args!(""), |inner| {
            let child = inner.child.as_ref().ok_or_else(no_child)?;
            Ok(child.id().into())
        })
    }

    /// `nbd_shutdown`: says goodbye, and waits until the server closes.
    ///
    /// # Errors
    ///
    /// The connection failed.
    pub fn shutdown(&self, flags: u32) -> Result<()> {
        let call = "nbd_shutdown";
        let shown = format_args!("flags={flags:#x}");
        self.call(call, Permitted::LIVE, shown, |inner| {
            check_flags("flags", flags, SHUTDOWN_MASK)?;
            if inner.state == State::Negotiating {
                return inner.leave_negotiation();
            }
            if flags & SHUTDOWN_ABANDON_PENDING != 0 {
                inner.queue.retain(|out| out.is_begun() || out.cookie == 0);
                inner.flight.abandon(|command| !command.begun);
                inner.waiting.changed = true;
            }
            match inner.leaving {
                true => Ok(()),
                false => inner.disconnect(),
            }
        })?;
        self.until_over(call)
    }

    pub(crate) fn until_over(&self, call: &'static str) -> Result<()> {
        self.wait(call, |inner| {
            matches!(inner.state, State::Closed | State::Dead).then_some(Ok(()))
        })
    }

    /// `nbd_aio_disconnect`.
    ///
    /// # Errors
    ///
    /// It was said already.
    pub fn aio_disconnect(&self, flags: u32) -> Result<()> {
        let call = "nbd_aio_disconnect";
        let shown = format_args!("flags={flags:#x}");
        self.call(call, Permitted::CONNECTED, shown, |inner| {
            check_flags("flags", flags, 0)?;
            inner.disconnect()
        })
    }

    /// `nbd_get_uri`.
    ///
    /// # Errors
    ///
    /// There is none that leads to a socket or a command.
    pub fn get_uri(&self) -> Result<String> {
        let none = format_args!("");
        self.call("nbd_get_uri", Permitted::STARTED, none, |inner| {
            let place = inner
                .place
                .as_ref()
                .ok_or_else(|| Fault::invalid("cannot construct a URI for this connection type"))?;
            Ok(place.uri(&inner.settings()))
        })
    }
}

fn no_child() -> Fault {
    Fault::of("no subprocess exists", Errno::SRCH)
}
