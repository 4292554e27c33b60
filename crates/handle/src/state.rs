//! Where a connection is, and which calls are permitted there.

use std::ffi::CStr;

use rustix::io::Errno;

use crate::error::Fault;

/// Where a connection is. The order is that of [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Created,
    Connecting,
    Magic,
    StartTls,
    TlsHandshake,
    ExtendedHeaders,
    StructuredReply,
    MetaContext,
    Go,
    ExportName,
    Info,
    List,
    OptAbort,
    Negotiating,
    Ready,
    /// Connected, and a request is not fully sent.
    Sending,
    /// Connected, and a reply has come in part.
    Receiving,
    Closed,
    Dead,
}

/// Names and words, as `nbd_connection_state` shows them. Only the groups that libnbd documents are
/// promised; the words for the states in between are our own.
const NAMES: [&CStr; 19] = [
    c"START: Handle after being initially created",
    c"CONNECT.CONNECTING: Connecting to the remote server",
    c"MAGIC.RECV_MAGIC: Receive initial magic identification from server",
    c"NEWSTYLE.OPT_STARTTLS.RECV_REPLY: Receive newstyle NBD_OPT_STARTTLS option reply",
    c"NEWSTYLE.OPT_STARTTLS.TLS_HANDSHAKE: TLS handshake",
    c"NEWSTYLE.OPT_EXTENDED_HEADERS.RECV_REPLY: Receive newstyle NBD_OPT_EXTENDED_HEADERS option reply",
    c"NEWSTYLE.OPT_STRUCTURED_REPLY.RECV_REPLY: Receive newstyle NBD_OPT_STRUCTURED_REPLY option reply",
    c"NEWSTYLE.OPT_META_CONTEXT.RECV_REPLY: Receive newstyle NBD_OPT_SET_META_CONTEXT option reply",
    c"NEWSTYLE.OPT_GO.RECV_REPLY: Receive newstyle NBD_OPT_GO option reply",
    c"NEWSTYLE.OPT_EXPORT_NAME.RECV_REPLY: Receive newstyle NBD_OPT_EXPORT_NAME reply",
    c"NEWSTYLE.OPT_GO.RECV_REPLY: Receive newstyle NBD_OPT_INFO option reply",
    c"NEWSTYLE.OPT_LIST.RECV_REPLY: Receive newstyle NBD_OPT_LIST option reply",
    c"NEWSTYLE.PREPARE_OPT_ABORT: Wait for the server to close after NBD_OPT_ABORT",
    c"NEGOTIATING: Connection is ready to negotiate an NBD option",
    c"READY: Connection is ready to process NBD commands",
    c"ISSUE_COMMAND.SEND_REQUEST: Sending a request to the remote server",
    c"REPLY.RECV_REPLY: Receive a reply from the remote server",
    c"CLOSED: Connection is closed",
    c"DEAD: Connection is in an unrecoverable error state, can only be closed",
];

impl State {
    /// The name, for messages.
    pub fn name(self) -> &'static str {
        let all = self.words().to_str().unwrap_or_default();
        all.split_once(':').map_or(all, |(name, _)| name)
    }

    pub fn words(self) -> &'static CStr {
        NAMES[self as usize]
    }

    /// The state with this number.
    pub fn of(number: u8) -> State {
        use State::*;
        const ALL: [State; 19] = [
            Created,
            Connecting,
            Magic,
            StartTls,
            TlsHandshake,
            ExtendedHeaders,
            StructuredReply,
            MetaContext,
            Go,
            ExportName,
            Info,
            List,
            OptAbort,
            Negotiating,
            Ready,
            Sending,
            Receiving,
            Closed,
            Dead,
        ];
        ALL[usize::from(number)]
    }

    /// What the manual pages call connecting: from the first packet until options can be chosen or data
    /// moved.
    pub fn is_connecting(self) -> bool {
        !matches!(
            self,
            State::Created | State::Negotiating | State::Closed | State::Dead
        ) && !self.is_connected()
    }

    /// Commands can be submitted.
    pub fn is_connected(self) -> bool {
        matches!(self, State::Ready | State::Sending | State::Receiving)
    }
}

/// The states in which a call is permitted, in the six groups of the manual pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permitted(u8);

const CREATED: u8 = 1 << 0;
const CONNECTING: u8 = 1 << 1;
const NEGOTIATING: u8 = 1 << 2;
const CONNECTED: u8 = 1 << 3;
const CLOSED: u8 = 1 << 4;
const DEAD: u8 = 1 << 5;

/// The words of the groups, in order.
const GROUPS: [(u8, &str); 6] = [
    (CREATED, "newly created"),
    (CONNECTING, "connecting"),
    (NEGOTIATING, "negotiating"),
    (CONNECTED, "connected with the server"),
    (CLOSED, "shut down"),
    (DEAD, "dead"),
];

impl Permitted {
    pub const ALWAYS: Permitted = Permitted(0x3f);
    pub const CREATED: Permitted = Permitted(CREATED);
    pub const SETTING_UP: Permitted = Permitted(CREATED | NEGOTIATING);
    pub const NEGOTIATING: Permitted = Permitted(NEGOTIATING);
    pub const CONNECTED: Permitted = Permitted(CONNECTED);
    pub const LIVE: Permitted = Permitted(NEGOTIATING | CONNECTED);
    pub const KNOWN: Permitted = Permitted(NEGOTIATING | CONNECTED | CLOSED);
    pub const WAS_CONNECTED: Permitted = Permitted(CONNECTED | CLOSED | DEAD);
    pub const STARTED: Permitted = Permitted(CONNECTING | NEGOTIATING | CONNECTED | CLOSED | DEAD);

    /// Refuses the other states.
    pub fn check(self, state: State) -> Result<(), Fault> {
        let group = match state {
            State::Created => CREATED,
            State::Negotiating => NEGOTIATING,
            State::Closed => CLOSED,
            State::Dead => DEAD,
            state if state.is_connected() => CONNECTED,
            _ => CONNECTING,
        };
        if self.0 & group != 0 {
            return Ok(());
        }
        let names = GROUPS.iter().filter(|(bit, _)| self.0 & bit != 0);
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        let errno = match state {
            State::Created => Errno::NOTCONN,
            _ => Errno::INVAL,
        };
        let text = format!(
            "invalid state: {}: the handle must be {}",
            state.name(),
            names.join(", or ")
        );
        Err(Fault::of(text, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_number_and_a_name() {
        for (number, name) in NAMES.iter().enumerate() {
            let state = State::of(number as u8);
            assert_eq!(state as usize, number);
            assert_eq!(state.words(), *name);
            assert!(name.to_str().unwrap().starts_with(state.name()));
            let groups = [
                state == State::Created,
                state.is_connecting(),
                state == State::Negotiating,
                state.is_connected(),
                state == State::Closed,
                state == State::Dead,
            ];
            assert_eq!(groups.iter().filter(|is| **is).count(), 1, "{state:?}");
            for (n, is) in groups.iter().enumerate() {
                let only = Permitted(1 << n);
                assert_eq!(only.check(state).is_ok(), *is, "{state:?} {n}");
            }
            assert!(Permitted::ALWAYS.check(state).is_ok());
        }
    }

    #[test]
    fn messages_are_libnbds() {
        let said = |permitted: Permitted, state| {
            let fault = permitted.check(state).unwrap_err();
            (fault.text, fault.errno)
        };
        assert_eq!(
            said(Permitted::KNOWN, State::Created),
            (
                "invalid state: START: the handle must be negotiating, or connected with the \
                 server, or shut down"
                    .into(),
                107
            )
        );
        assert_eq!(
            said(Permitted::SETTING_UP, State::Dead),
            (
                "invalid state: DEAD: the handle must be newly created, or negotiating".into(),
                22
            )
        );
    }
}
