//! The words that start SSH.

use std::ffi::OsString;

use super::Remote;

/// The words that let SSH carry a connection on its standard input and output: no shell reads them,
/// neither here nor there.
///
/// ```
/// use nbd::uri::{Remote, ssh_command};
/// let words = ssh_command(Some("me".into()), "host".into(), None, &Remote::Port(10809), false);
/// assert_eq!(words, ["ssh", "-l", "me", "-W", "localhost:10809", "--", "host"]);
/// ```
pub fn ssh_command(
    user: Option<String>,
    host: String,
    port: Option<u16>,
    to: &Remote,
    compress: bool,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["ssh".into()];
    if compress {
        words.push("-C".into());
    }
    if let Some(port) = port {
        words.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(user) = user {
        words.extend(["-l".into(), user.into()]);
    }
    words.push("-W".into());
    words.push(match to {
        Remote::Port(port) => format!("localhost:{port}").into(),
        Remote::Unix(path) => path.clone().into(),
    });
    words.extend(["--".into(), host.into()]);
    words
}
