//! The one binary: it reads the command line and hands over to the command.

#![warn(clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;

mod audit;
mod bench;
mod bundle_file;
mod cli;
mod client;
mod config;
mod definition_file;
mod examples;
mod exit;
mod offline;
mod output;
mod part_file;
mod progress;
mod server;
mod wiring;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        output::say!("error: a TLS provider was installed before the program's own");
        return exit::Exit::Failed.into();
    }
    match cli::execute(cli::Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit().into()
        }
    }
}
