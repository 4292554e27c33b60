//! GnuTLS priority strings, as far as [`Config::priority`](crate::Config::priority) says.
//!
//! Users of nbdkit have them in their scripts, so the words must work; the meaning is translated to
//! lists of suites for OpenSSL. What is not understood is refused, because to leave out a `-` would
//! be to offer what somebody has forbidden.

use crate::Error;

/// What may be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    tls12: bool,
    tls13: bool,
    /// OpenSSL's own configuration says which suites.
    system: bool,
    /// Most wanted first.
    ciphers: Vec<Cipher>,
    exchanges: Vec<Exchange>,
}

/// What is offered to one kind of clients.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    /// Suites of TLS 1.2 in OpenSSL's names; `None` if that version is not offered.
    pub tls12: Option<Suites>,
    /// The same of TLS 1.3.
    pub tls13: Option<Suites>,
}

/// Which suites.
#[derive(Debug, PartialEq, Eq)]
pub enum Suites {
    /// Those that OpenSSL is configured to offer.
    System,
    /// These, separated by colons.
    These(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20,
    Aes128Cbc,
    Aes256Cbc,
}

/// How keys are agreed on in TLS 1.2; in TLS 1.3 that is no part of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    EcdheEcdsa,
    EcdheRsa,
    EcdhePsk,
    Rsa,
    Psk,
}

use Cipher::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm, ChaCha20};
use Exchange::{EcdheEcdsa, EcdhePsk, EcdheRsa, Psk, Rsa};

const CIPHERS: [(&str, Cipher); 5] = [
    ("AES-128-GCM", Aes128Gcm),
    ("AES-256-GCM", Aes256Gcm),
    ("CHACHA20-POLY1305", ChaCha20),
    ("AES-128-CBC", Aes128Cbc),
    ("AES-256-CBC", Aes256Cbc),
];

const EXCHANGES: [(&str, Exchange); 5] = [
    ("ECDHE-ECDSA", EcdheEcdsa),
    ("ECDHE-RSA", EcdheRsa),
    ("ECDHE-PSK", EcdhePsk),
    ("RSA", Rsa),
    ("PSK", Psk),
];

/// AES in hardware is the fastest of these, and what kernels and cards can take over.
const NORMAL: [Cipher; 3] = [Aes128Gcm, Aes256Gcm, ChaCha20];
const STRONG: [Cipher; 2] = [Aes256Gcm, ChaCha20];

/// Those whose recorded traffic stays secret when a key becomes known later.
const FORWARD_SECRET: [Exchange; 3] = [EcdheEcdsa, EcdheRsa, EcdhePsk];

/// Never offered; may be taken away.
const OLD_VERSIONS: [&str; 6] = [
    "VERS-SSL3.0",
    "VERS-TLS1.0",
    "VERS-TLS1.1",
    "VERS-DTLS0.9",
    "VERS-DTLS1.0",
    "VERS-DTLS1.2",
];

/// Never offered, but part of a string that everybody writes for keys.
const WITHOUT_EFFECT: [&str; 2] = ["DHE-RSA", "DHE-PSK"];

/// Always so.
const ALWAYS: [&str; 8] = [
    "+AEAD",
    "+MAC-ALL",
    "+SIGN-ALL",
    "+GROUP-ALL",
    "+COMP-NULL",
    "+CTYPE-X509",
    "%SERVER_PRECEDENCE",
    "%NO_TICKETS",
];

impl Policy {
    /// Understands a priority string.
    pub fn parse(priority: &str) -> Result<Policy, Error> {
        let upper = priority.to_ascii_uppercase();
        let mut words = upper.split(':');
        let first = words.next().unwrap_or_default();
        let wrong = |why: String| Error::Priority {
            priority: priority.to_owned(),
            why,
        };
        let mut policy = Policy::start(first).map_err(wrong)?;
        for word in words {
            policy.change(word).map_err(wrong)?;
        }
        if !policy.tls12 && !policy.tls13 {
            return Err(wrong("no version of TLS is left".into()));
        }
        Ok(policy)
    }

    fn start(word: &str) -> Result<Policy, String> {
        let (ciphers, system): (&[Cipher], bool) = match word {
            "NORMAL" | "PERFORMANCE" | "PFS" | "SECURE128" => (&NORMAL, false),
            "SECURE192" | "SECURE256" => (&STRONG, false),
            "NONE" => (&[], false),
            _ if word.starts_with('@') && word[1..].split(',').next_back() == Some("SYSTEM") => {
                (&[], true)
            }
            _ => return Err(format!("{word:?} is not known as its first word")),
        };
        let none = word == "NONE";
        Ok(Policy {
            tls12: !none,
            tls13: !none,
            system,
            ciphers: ciphers.to_vec(),
            exchanges: if none {
                Vec::new()
            } else {
                FORWARD_SECRET.to_vec()
            },
        })
    }

    fn change(&mut self, word: &str) -> Result<(), String> {
        if ALWAYS.contains(&word) {
            return Ok(());
        }
        let (add, name) = match (word.strip_prefix('+'), word.strip_prefix(['-', '!'])) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(format!("{word:?} is not known")),
        };
        match name {
            "VERS-ALL" | "VERS-TLS-ALL" => (self.tls12, self.tls13) = (add, add),
            "VERS-TLS1.2" => self.tls12 = add,
            "VERS-TLS1.3" => self.tls13 = add,
            _ if OLD_VERSIONS.contains(&name) => {
                if add {
                    return Err(format!("{word:?}: nothing below TLS 1.2 is offered"));
                }
            }
            _ if WITHOUT_EFFECT.contains(&name) => {}
            _ if self.system => {
                return Err(format!("{word:?} cannot be said of the system's suites"));
            }
            _ => return self.change_suites(word, add, name),
        }
        Ok(())
    }

    fn change_suites(&mut self, word: &str, add: bool, name: &str) -> Result<(), String> {
        let cipher = CIPHERS.iter().find(|(known, _)| *known == name);
        let exchange = EXCHANGES.iter().find(|(known, _)| *known == name);
        match (name, cipher, exchange) {
            ("CIPHER-ALL", _, _) => set(&mut self.ciphers, add, CIPHERS.map(|(_, c)| c)),
            ("KX-ALL", _, _) => set(&mut self.exchanges, add, EXCHANGES.map(|(_, e)| e)),
            (_, Some((_, cipher)), _) => set(&mut self.ciphers, add, [*cipher]),
            (_, _, Some((_, exchange))) => set(&mut self.exchanges, add, [*exchange]),
            _ => return Err(format!("{word:?} is not known")),
        }
        Ok(())
    }

    /// What is offered to clients that prove themselves by keys (`psk`), or by certificates or not
    /// at all.
    pub fn offer(&self, psk: bool) -> Offer {
        let these = |names: Vec<&str>| match names.is_empty() {
            true => None,
            false => Some(Suites::These(names.join(":"))),
        };
        if self.system {
            return Offer {
                tls12: self.tls12.then_some(Suites::System),
                tls13: self.tls13.then_some(Suites::System),
            };
        }
        let exchanges = || {
            let all = self.exchanges.iter().copied();
            all.filter(|exchange| matches!(exchange, EcdhePsk | Psk) == psk)
        };
        // Ciphers first, so that their order counts.
        let tls12 = self
            .ciphers
            .iter()
            .flat_map(|cipher| exchanges().filter_map(|exchange| suite12(exchange, *cipher)));
        let tls13 = self
            .ciphers
            .iter()
            .filter_map(|cipher| suite13(*cipher, psk));
        Offer {
            tls12: these(tls12.collect()).filter(|_| self.tls12),
            tls13: these(tls13.collect()).filter(|_| self.tls13),
        }
    }
}

fn set<T: Copy + PartialEq, const N: usize>(list: &mut Vec<T>, add: bool, items: [T; N]) {
    for item in items {
        match (add, list.contains(&item)) {
            (true, false) => list.push(item),
            (false, true) => list.retain(|known| *known != item),
            _ => {}
        }
    }
}

/// OpenSSL's name of a suite of TLS 1.2, if there is such a suite.
fn suite12(exchange: Exchange, cipher: Cipher) -> Option<&'static str> {
    Some(match (exchange, cipher) {
        (EcdheEcdsa, Aes128Gcm) => "ECDHE-ECDSA-AES128-GCM-SHA256",
        (EcdheEcdsa, Aes256Gcm) => "ECDHE-ECDSA-AES256-GCM-SHA384",
        (EcdheEcdsa, ChaCha20) => "ECDHE-ECDSA-CHACHA20-POLY1305",
        (EcdheEcdsa, Aes128Cbc) => "ECDHE-ECDSA-AES128-SHA256",
        (EcdheEcdsa, Aes256Cbc) => "ECDHE-ECDSA-AES256-SHA384",
        (EcdheRsa, Aes128Gcm) => "ECDHE-RSA-AES128-GCM-SHA256",
        (EcdheRsa, Aes256Gcm) => "ECDHE-RSA-AES256-GCM-SHA384",
        (EcdheRsa, ChaCha20) => "ECDHE-RSA-CHACHA20-POLY1305",
        (EcdheRsa, Aes128Cbc) => "ECDHE-RSA-AES128-SHA256",
        (EcdheRsa, Aes256Cbc) => "ECDHE-RSA-AES256-SHA384",
        (Rsa, Aes128Gcm) => "AES128-GCM-SHA256",
        (Rsa, Aes256Gcm) => "AES256-GCM-SHA384",
        (Rsa, Aes128Cbc) => "AES128-SHA256",
        (Rsa, Aes256Cbc) => "AES256-SHA256",
        (EcdhePsk, ChaCha20) => "ECDHE-PSK-CHACHA20-POLY1305",
        (EcdhePsk, Aes128Cbc) => "ECDHE-PSK-AES128-CBC-SHA256",
        (EcdhePsk, Aes256Cbc) => "ECDHE-PSK-AES256-CBC-SHA384",
        (Psk, Aes128Gcm) => "PSK-AES128-GCM-SHA256",
        (Psk, Aes256Gcm) => "PSK-AES256-GCM-SHA384",
        (Psk, ChaCha20) => "PSK-CHACHA20-POLY1305",
        (Psk, Aes128Cbc) => "PSK-AES128-CBC-SHA256",
        (Psk, Aes256Cbc) => "PSK-AES256-CBC-SHA384",
        (Rsa, ChaCha20) | (EcdhePsk, Aes128Gcm | Aes256Gcm) => return None,
    })
}

/// The same of TLS 1.3. Keys of files are for SHA-256 (RFC 8446, section 4.2.11).
fn suite13(cipher: Cipher, psk: bool) -> Option<&'static str> {
    match cipher {
        Aes128Gcm => Some("TLS_AES_128_GCM_SHA256"),
        Aes256Gcm if !psk => Some("TLS_AES_256_GCM_SHA384"),
        ChaCha20 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        Aes256Gcm | Aes128Cbc | Aes256Cbc => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ssl::{SslContextBuilder, SslMethod};

    fn offer(priority: &str, psk: bool) -> (Option<String>, Option<String>) {
        let offer = Policy::parse(priority).unwrap().offer(psk);
        let names = |suites| match suites {
            Some(Suites::These(names)) => Some(names),
            Some(Suites::System) => Some("system".into()),
            None => None,
        };
        (names(offer.tls12), names(offer.tls13))
    }

    #[test]
    fn words_become_suites() {
        let (old, new) = offer("NORMAL", true);
        assert_eq!(old.unwrap(), "ECDHE-PSK-CHACHA20-POLY1305");
        let new = new.unwrap();
        assert_eq!(new, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256");
        // What everybody writes for keys.
        let (old, new) = offer("normal:-vers-tls1.3:+ECDHE-PSK:+DHE-PSK:+PSK", true);
        assert_eq!(new, None);
        let old = old.unwrap();
        assert!(old.starts_with("PSK-AES128-GCM-SHA256:"), "{old}");
        assert!(old.contains("ECDHE-PSK-CHACHA20-POLY1305"));
        assert_eq!(offer("NORMAL:-VERS-ALL:+VERS-TLS1.3", false).0, None);
        assert_eq!(offer("NORMAL:!VERS-TLS1.2:-VERS-TLS1.0", false).0, None);
        let (old, new) = offer("SECURE192", false);
        assert!(!old.unwrap().contains("128") && !new.unwrap().contains("128"));
        assert_eq!(offer("PFS", false), offer("NORMAL", false));
        for suite in offer("NORMAL", false).0.unwrap().split(':') {
            assert!(suite.starts_with("ECDHE-"), "{suite}");
        }
        let only = "NONE:+VERS-TLS1.2:+AES-256-GCM:+ECDHE-RSA:+AEAD:+SIGN-ALL:+GROUP-ALL";
        let one = Some("ECDHE-RSA-AES256-GCM-SHA384".to_owned());
        assert_eq!(offer(only, false), (one, None));
        assert_eq!(offer(only, true), (None, None));
        assert_eq!(
            offer("NORMAL:-CIPHER-ALL:+AES-128-GCM:-ECDHE-ECDSA", false)
                .0
                .unwrap(),
            "ECDHE-RSA-AES128-GCM-SHA256"
        );
        let system = || Some("system".to_owned());
        assert_eq!(offer("@SYSTEM", false), (system(), system()));
        assert_eq!(offer("@NBDKIT,SYSTEM:-VERS-TLS1.2", true), (None, system()));
    }

    #[test]
    fn openssl_knows_every_suite() {
        for psk in [false, true] {
            let (old, new) = offer("NORMAL:+CIPHER-ALL:+KX-ALL", psk);
            let mut builder = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
            for suite in old.unwrap().split(':') {
                builder.set_cipher_list(suite).expect(suite);
            }
            for suite in new.unwrap().split(':') {
                builder.set_ciphersuites(suite).expect(suite);
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let table = [
            ("", "first word"),
            ("LEGACY", "\"LEGACY\" is not known"),
            ("+VERS-TLS1.3", "first word"),
            ("@OTHER", "first word"),
            ("@SYSTEM,OTHER", "first word"),
            ("NORMAL:", "\"\" is not known"),
            ("NORMAL:AES-128-GCM", "not known"),
            ("NORMAL:+ARCFOUR-128", "\"+ARCFOUR-128\" is not known"),
            ("NORMAL:%COMPAT", "not known"),
            ("NORMAL:-SIGN-ALL", "not known"),
            ("NORMAL:+VERS-TLS1.1", "nothing below TLS 1.2"),
            ("NORMAL:-VERS-ALL", "no version"),
            ("NONE", "no version"),
            ("@SYSTEM:-AES-128-GCM", "system's"),
        ];
        for (priority, why) in table {
            let error = Policy::parse(priority).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.starts_with("TLS priority \"") && !error.contains('\n'));
        }
    }
}
