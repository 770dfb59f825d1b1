//! What the demo looks like.

use std::{
    env,
    io::{IsTerminal as _, stdout},
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

pub(crate) fn red(text: &str) -> String {
    style("1;31", text)
}

fn style(code: &str, text: &str) -> String {
    if stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
