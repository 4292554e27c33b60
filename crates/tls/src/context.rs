//! From files to an OpenSSL context: what all sessions of one state of the files share.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use openssl::{
    error::ErrorStack,
    ex_data::Index,
    pkey::{PKey, Private},
    ssl::{
        Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslMode, SslOptions, SslRef,
        SslSessionCacheMode, SslVerifyMode, SslVersion,
    },
    x509::{
        X509,
        store::{X509Lookup, X509Store, X509StoreBuilder},
        verify::X509VerifyFlags,
    },
};

use crate::{
    Error,
    files::{self, Files, Pair, read, unusable},
    priority::{Policy, Suites},
    psk::Keys,
    reason,
};

/// Who a client says it is, by pre-shared key. True only once the handshake is done.
pub struct Claim {
    /// The user's name.
    pub user: String,
    /// There is such a user.
    pub known: bool,
}

/// Where a session's [`Claim`] is kept.
pub fn claim() -> Result<Index<Ssl, Claim>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Claim>> = OnceLock::new();
    match INDEX.get() {
        Some(index) => Ok(*index),
        None => {
            let index = Ssl::new_ex_index()?;
            Ok(*INDEX.get_or_init(|| index))
        }
    }
}

/// Reads a server's files and makes a context of them.
pub fn server(files: &Files, policy: &Policy, verify_peer: bool) -> Result<SslContext, Error> {
    let psk = matches!(files, Files::Psk(_));
    let mut builder = bare(SslMethod::tls_server(), policy, psk)?;
    // OpenSSL takes a pre-shared key of TLS 1.3 for a resumed session, and a server of it wants to
    // know whose.
    builder.set_session_id_context(b"nbd")?;
    match files {
        Files::Psk(path) => expect_keys(&mut builder, Keys::load(path)?)?,
        Files::X509(directory) => use_certificates(&mut builder, directory, verify_peer)?,
    }
    Ok(builder.build())
}

/// Reads a client's files and makes a context of them. `None` trusts whom the system trusts.
pub fn client(
    files: Option<&Files>,
    policy: &Policy,
    user: &str,
    verify_peer: bool,
) -> Result<SslContext, Error> {
    let psk = matches!(files, Some(Files::Psk(_)));
    let mut builder = bare(SslMethod::tls_client(), policy, psk)?;
    builder.set_verify(match verify_peer {
        true => SslVerifyMode::PEER,
        false => SslVerifyMode::NONE,
    });
    match files {
        None => builder.set_default_verify_paths()?,
        Some(Files::Psk(path)) => {
            let keys = Keys::load(path)?;
            let key = keys.of_known(user);
            let key = key.ok_or_else(|| unusable(path, format!("there is no user {user:?}")))?;
            show_key(&mut builder, user.to_owned(), key.into());
        }
        Some(Files::X509(directory)) => {
            let trusted = trusted(&files::ca(directory))?;
            builder.set_verify_cert_store(store(directory, &trusted)?)?;
            let pair = files::client_pair(directory);
            if pair.certificate.exists() || pair.key.exists() {
                use_pair(&mut builder, &pair)?;
            }
        }
    }
    Ok(builder.build())
}

/// A context with versions and suites, and without anybody it could let in.
fn bare(method: SslMethod, policy: &Policy, psk: bool) -> Result<SslContextBuilder, Error> {
    let mut builder = SslContextBuilder::new(method)?;
    let offer = policy.offer(psk);
    let (min, max) = match (&offer.tls12, &offer.tls13) {
        (Some(_), Some(_)) => (SslVersion::TLS1_2, SslVersion::TLS1_3),
        (Some(_), None) => (SslVersion::TLS1_2, SslVersion::TLS1_2),
        (None, Some(_)) => (SslVersion::TLS1_3, SslVersion::TLS1_3),
        (None, None) => return Err(nothing_left(psk)),
    };
    builder.set_min_proto_version(Some(min))?;
    builder.set_max_proto_version(Some(max))?;
    if let Some(Suites::These(names)) = &offer.tls12 {
        builder.set_cipher_list(names)?;
    }
    if let Some(Suites::These(names)) = &offer.tls13 {
        builder.set_ciphersuites(names)?;
    }
    builder.set_options(
        SslOptions::CIPHER_SERVER_PREFERENCE
            | SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_TICKET,
    );
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_num_tickets(0)?;
    // An idle session holds no buffers.
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    Ok(builder)
}

fn nothing_left(psk: bool) -> Error {
    let kind = if psk {
        "pre-shared keys"
    } else {
        "certificates"
    };
    Error::Library(format!(
        "the TLS priority leaves no cipher suite for {kind}"
    ))
}

/// Says who we are.
fn show_key(builder: &mut SslContextBuilder, user: String, key: Box<[u8]>) {
    builder.set_psk_client_callback(move |_, _, identity, room| {
        // With the NUL that ends it.
        let (Some(name), Some(place)) =
            (identity.get_mut(..=user.len()), room.get_mut(..key.len()))
        else {
            return Ok(0);
        };
        name[..user.len()].copy_from_slice(user.as_bytes());
        name[user.len()] = 0;
        place.copy_from_slice(&key);
        Ok(key.len())
    });
}

fn expect_keys(builder: &mut SslContextBuilder, keys: Keys) -> Result<(), Error> {
    let (keys, claim) = (Arc::new(keys), claim()?);
    builder.set_psk_server_callback(move |ssl: &mut SslRef, identity, room: &mut [u8]| {
        let identity = identity.unwrap_or_default();
        let (key, known) = keys.of(std::str::from_utf8(identity).ok());
        let user = String::from_utf8_lossy(identity).into_owned();
        ssl.set_ex_data(claim, Claim { user, known });
        let Some(room) = room.get_mut(..key.len()) else {
            return Ok(0);
        };
        room.copy_from_slice(key);
        Ok(key.len())
    });
    Ok(())
}

fn use_certificates(
    builder: &mut SslContextBuilder,
    directory: &Path,
    verify_peer: bool,
) -> Result<(), Error> {
    let trusted = trusted(&files::ca(directory))?;
    let mut kinds = Vec::new();
    for (n, pair) in files::pairs(directory).enumerate() {
        if n > 0 && !pair.certificate.exists() && !pair.key.exists() {
            continue;
        }
        let kind = use_pair(builder, &pair)?;
        if kinds.contains(&kind) {
            let why = "a certificate of this kind of key is there already";
            return Err(unusable(&pair.certificate, why));
        }
        kinds.push(kind);
    }
    // Two stores, so that what is trusted for clients does not complete our own chain.
    builder.set_verify_cert_store(store(directory, &trusted)?)?;
    if verify_peer {
        for certificate in &trusted {
            builder.add_client_ca(certificate)?;
        }
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    } else {
        builder.set_verify(SslVerifyMode::NONE);
    }
    Ok(())
}

/// Whom we trust, but for what was revoked.
fn store(directory: &Path, trusted: &[X509]) -> Result<X509Store, Error> {
    let mut store = X509StoreBuilder::new()?;
    for certificate in trusted {
        store.add_cert(certificate.clone())?;
    }
    let crl = files::crl(directory);
    if crl.exists() {
        read(&crl)?;
        let lookup = store.add_lookup(X509Lookup::file())?;
        lookup
            .load_crl_file(&crl, SslFiletype::PEM)
            .map_err(|_| unusable(&crl, "there is no certificate revocation list in it"))?;
        store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)?;
    }
    Ok(store.build())
}

fn trusted(path: &Path) -> Result<Vec<X509>, Error> {
    let found = X509::stack_from_pem(&read(path)?)
        .map_err(|error| unusable(path, format!("not a certificate: {}", reason(&error))))?;
    match found.is_empty() {
        true => Err(unusable(path, "there is no certificate in it")),
        false => Ok(found),
    }
}

/// Adds a certificate with its chain and key; says of which kind the key is.
fn use_pair(builder: &mut SslContextBuilder, pair: &Pair) -> Result<openssl::pkey::Id, Error> {
    let Pair { certificate, key } = pair;
    // Read here for the system's words if it is not there.
    read(certificate)?;
    builder
        .set_certificate_chain_file(certificate)
        .map_err(|error| unusable(certificate, not_a("certificate", &error)))?;
    let private = private_key(key)?;
    builder
        .set_private_key(&private)
        .and_then(|()| builder.check_private_key())
        .map_err(|error| {
            let why = reason(&error);
            unusable(
                key,
                format!("does not belong to {}: {why}", certificate.display()),
            )
        })?;
    Ok(private.id())
}

fn private_key(path: &Path) -> Result<PKey<Private>, Error> {
    let pem = read(path)?;
    // Without this OpenSSL would ask for a pass phrase on the terminal.
    let mut encrypted = false;
    let found = PKey::private_key_from_pem_callback(&pem, |_| {
        encrypted = true;
        Ok(0)
    });
    found.map_err(|error| match encrypted {
        true => unusable(path, "the key is protected by a pass phrase"),
        false => unusable(path, not_a("private key", &error)),
    })
}

fn not_a(what: &str, error: &ErrorStack) -> String {
    format!("not a {what}: {}", reason(error))
}
