//! Rules of the house that a machine can check: who may depend on whom, how files look, and that
//! every code of an error has its page.

mod codes;
mod crates;
mod files;
mod sources;
