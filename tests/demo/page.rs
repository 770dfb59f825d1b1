//! What the demo looks like.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _, stdout},
};

pub(crate) fn title(number: u32, text: &str) {
    println!(
        "\n{} {}",
        style("1;36", &format!("{number}.")),
        style("1", text)
    );
}

/// A command, as a person would type it.
pub(crate) fn typed(command: &str) {
    println!("   {} {}", style("2", "$"), style("36", command));
}

/// What a command said.
pub(crate) fn said(output: &str) {
    for line in output.lines() {
        println!("     {line}");
    }
}

/// What the audience should have seen.
pub(crate) fn seen(text: &str) {
    println!("   {} {text}", style("1;32", "✓"));
}

pub(crate) fn print(text: &str) {
    println!("{text}");
}

/// Prints what has its ends of lines itself, at once.
pub(crate) fn put(text: &str) {
    // Without anybody to see it, it need not be seen.
    let _: io::Result<()> = write!(stdout(), "{text}").and_then(|()| stdout().flush());
}

pub(crate) fn red(text: &str) -> String {
    style("1;31", text)
}

pub(crate) fn style(code: &str, text: &str) -> String {
    if stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
