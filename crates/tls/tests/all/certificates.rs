//! A certificate authority for tests, and the files it makes. Shared by the tests of several crates.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use openssl::{
    asn1::{Asn1Integer, Asn1Time},
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::Signer,
    x509::{
        X509, X509Builder, X509Name, X509NameBuilder,
        extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName},
    },
};

/// A certificate authority with a directory for its files.
pub struct Authority {
    name: String,
    certificate: X509,
    key: PKey<Private>,
    directory: tempfile::TempDir,
}

/// What kind of key a certificate is for.
#[derive(Clone, Copy)]
pub enum Kind {
    Ec,
    Rsa,
}

impl Authority {
    /// An authority, and its server's files.
    pub fn new(name: &str) -> Authority {
        let key = new_key(Kind::Ec);
        let certificate = issue(&Subject::ca(name), &key, None);
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority {
            name: name.to_owned(),
            certificate,
            key,
            directory,
        };
        fs::create_dir(authority.server()).unwrap();
        authority.write_ca(&authority.server());
        authority.issue_server(1, "", Kind::Ec);
        authority
    }

    /// The server's directory.
    pub fn server(&self) -> PathBuf {
        self.directory.path().join("server")
    }

    /// A path for anything else.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `server-cert{suffix}.pem` and its key.
    pub fn issue_server(&self, serial: u32, suffix: &str, kind: Kind) {
        let subject = Subject {
            serial,
            ..Subject::server("localhost")
        };
        self.write_pair(
            &self.server(),
            &format!("server-{{}}{suffix}.pem"),
            &subject,
            kind,
        );
    }

    /// A client's directory, with its certificate.
    pub fn issue_client(&self, serial: u32, name: &str) -> PathBuf {
        let directory = self.path(name);
        fs::create_dir(&directory).unwrap();
        self.write_ca(&directory);
        let subject = Subject {
            serial,
            ..Subject::client(name)
        };
        self.write_pair(&directory, "client-{}.pem", &subject, Kind::Ec);
        directory
    }

    /// A client's directory that only trusts this authority.
    pub fn anonymous(&self) -> PathBuf {
        let directory = self.path("anonymous");
        fs::create_dir_all(&directory).unwrap();
        self.write_ca(&directory);
        directory
    }

    pub fn write_ca(&self, directory: &Path) {
        let pem = self.certificate.to_pem().unwrap();
        fs::write(directory.join("ca-cert.pem"), pem).unwrap();
    }

    /// Writes a revocation list to the server's directory (RFC 5280, section 5.1).
    pub fn revoke(&self, serials: &[u8]) {
        const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
        let since = der(0x17, b"200101000000Z");
        let mut parts = ECDSA_SHA256.to_vec();
        parts.extend(self.certificate.subject_name().to_der().unwrap());
        parts.extend(&since);
        parts.extend(der(0x17, b"491231235959Z"));
        if !serials.is_empty() {
            let entry = |serial: &u8| der(0x30, &[der(2, &[*serial]), since.clone()].concat());
            let entries: Vec<u8> = serials.iter().flat_map(entry).collect();
            parts.extend(der(0x30, &entries));
        }
        let list = der(0x30, &parts);
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).unwrap();
        let signature = signer.sign_oneshot_to_vec(&list).unwrap();
        let signature = der(3, &[&[0], &signature[..]].concat());
        let signed = der(0x30, &[&list, ECDSA_SHA256, &signature].concat());
        let base64 = openssl::base64::encode_block(&signed);
        let pem = format!("-----BEGIN X509 CRL-----\n{base64}\n-----END X509 CRL-----\n");
        // Lines of PEM have 64 characters.
        let pem = pem
            .lines()
            .flat_map(|line| line.as_bytes().chunks(64))
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect::<Vec<_>>()
            .join("\n");
        fs::write(self.server().join("ca-crl.pem"), pem + "\n").unwrap();
    }

    fn write_pair(&self, directory: &Path, pattern: &str, subject: &Subject, kind: Kind) {
        let key = new_key(kind);
        let certificate = issue(subject, &key, Some(self));
        let path = |what| directory.join(pattern.replace("{}", what));
        fs::write(path("cert"), certificate.to_pem().unwrap()).unwrap();
        let pem = key.private_key_to_pem_pkcs8().unwrap();
        fs::write(path("key"), pem).unwrap();
    }
}

/// Something in DER: tag, length, contents.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match contents.len() {
        n @ ..128 => out.push(n as u8),
        n @ ..256 => out.extend([0x81, n as u8]),
        n => out.extend([0x82, (n >> 8) as u8, n as u8]),
    }
    out.extend(contents);
    out
}

struct Subject<'a> {
    name: &'a str,
    serial: u32,
    ca: bool,
    server: bool,
}

impl<'a> Subject<'a> {
    fn ca(name: &'a str) -> Subject<'a> {
        let mut subject = Subject::server(name);
        (subject.ca, subject.server) = (true, false);
        subject
    }

    fn server(name: &'a str) -> Subject<'a> {
        Subject {
            name,
            serial: 1,
            ca: false,
            server: true,
        }
    }

    fn client(name: &'a str) -> Subject<'a> {
        let mut subject = Subject::server(name);
        subject.server = false;
        subject
    }
}

pub fn new_key(kind: Kind) -> PKey<Private> {
    match kind {
        Kind::Ec => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
        }
        Kind::Rsa => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
    }
}

fn name(common: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().unwrap();
    builder.append_entry_by_text("O", "House").unwrap();
    builder.append_entry_by_text("CN", common).unwrap();
    builder.build()
}

fn issue(subject: &Subject<'_>, key: &PKey<Private>, by: Option<&Authority>) -> X509 {
    let mut builder = X509Builder::new().unwrap();
    let serial = BigNum::from_u32(subject.serial).unwrap();
    let serial = Asn1Integer::from_bn(&serial).unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&name(subject.name)).unwrap();
    let issuer = by.map_or(subject.name, |authority| &authority.name);
    builder.set_issuer_name(&name(issuer)).unwrap();
    let from = Asn1Time::from_unix(1_600_000_000).unwrap();
    builder.set_not_before(&from).unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(2).unwrap())
        .unwrap();
    builder.set_pubkey(key).unwrap();
    if subject.ca {
        let ca = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(ca).unwrap();
        let mut usage = KeyUsage::new();
        let usage = usage.critical().key_cert_sign().crl_sign().build();
        builder.append_extension(usage.unwrap()).unwrap();
    } else {
        let mut usage = ExtendedKeyUsage::new();
        match subject.server {
            true => usage.server_auth(),
            false => usage.client_auth(),
        };
        builder.append_extension(usage.build().unwrap()).unwrap();
    }
    if subject.server {
        let mut names = SubjectAlternativeName::new();
        let names = names.dns(subject.name).ip("127.0.0.1");
        let names = names.build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(names).unwrap();
    }
    let signer = by.map_or(key, |authority| &authority.key);
    builder.sign(signer, MessageDigest::sha256()).unwrap();
    builder.build()
}
