//! `edgesteer`: the daemon and the command line in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    control::main()
}
