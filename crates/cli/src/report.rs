//! How errors are told: one line with the whole chain of causes, and one with the cure where it
//! is known. Scripts may rely on the `blkit: error: ` in front.

/// Tells an error on standard error.
pub fn error(error: &block::Error) {
    eprintln!("blkit: error: {}", one_line(&error.chain()));
    if let Some(hint) = error.hint_text() {
        eprintln!("hint: {}", one_line(hint));
    }
}

/// File names and values come from outside: whatever is in them, a message stays one line.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_one_line() {
        assert_eq!(one_line("a\nb\x1b[1m \u{e4}"), "a\\nb\\u{1b}[1m \u{e4}");
    }
}
