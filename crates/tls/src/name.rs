//! Distinguished names as text (RFC 4514): the most specific part first, `CN=client,O=house`.

use openssl::x509::X509NameRef;

/// The name in the form that nbdkit shows and matches.
pub fn text(name: &X509NameRef) -> String {
    let mut parts: Vec<String> = name
        .entries()
        .map(|entry| {
            let object = entry.object();
            let kind = match object.nid().short_name() {
                Ok(kind) if kind != "UNDEF" => kind.to_owned(),
                _ => object.to_string(),
            };
            let value = entry.data().to_string().unwrap_or_default();
            format!("{kind}={}", escaped(&value))
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// Section 2.4; control characters too, because names are written to logs.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (n, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' if n == 0 => out.push_str("\\#"),
            ' ' if n == 0 || n == last => out.push_str("\\ "),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    out.push_str(&format!("\\{byte:02X}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::x509::X509NameBuilder;

    #[test]
    fn names_are_written_as_the_rfc_says() {
        let mut builder = X509NameBuilder::new().unwrap();
        builder.append_entry_by_text("C", "US").unwrap();
        builder
            .append_entry_by_text("O", "Sue, Grabbit & Runn")
            .unwrap();
        builder.append_entry_by_text("CN", "#1 \n ü ").unwrap();
        let name = builder.build();
        assert_eq!(
            text(&name),
            "CN=\\#1 \\0A ü\\ ,O=Sue\\, Grabbit & Runn,C=US"
        );
    }
}
