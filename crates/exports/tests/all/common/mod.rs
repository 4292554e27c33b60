//! Our own client as a device, so that the suites of the test kit run through a server and back.

use std::{io, sync::Arc};

use block::{Device, Error, Local, Reactor, Result};
use nbd::client::ClientOptions;
use reactor::Stream;
use sources::nbd::{Dial, Dialed, Settings};

/// Makes a connection on a reactor.
pub type Connect = Arc<dyn Fn(&Reactor) -> io::Result<Stream> + Send + Sync>;

struct Connector(Connect);

impl Dial for Connector {
    fn dial<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<Dialed>> {
        let stream = (self.0)(reactor).map_err(|error| Error::io("cannot connect", error));
        Box::pin(async move { stream.map(Dialed::from) })
    }
}

/// The default export of the server that `connect` reaches.
pub async fn open(
    reactor: &Reactor,
    connect: &Connect,
    options: ClientOptions,
    settings: Settings,
) -> Arc<dyn Device> {
    let dial = Arc::new(Connector(connect.clone()));
    let opened =
        sources::nbd::open(reactor, &"client".into(), dial, options.into(), settings).await;
    opened.unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Options of a client that goes for the default export.
pub fn options(mode: nbd::Mode, contexts: &[&str]) -> ClientOptions {
    ClientOptions {
        mode,
        contexts: contexts.iter().map(|c| c.to_string()).collect(),
        ..ClientOptions::default()
    }
}
