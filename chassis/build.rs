//! Rebuilds the crate when a migration is added, since the macro that embeds them can't tell.

fn main() {
    println!("cargo:rerun-if-changed=../migrations/sqlite/journal");
    println!("cargo:rerun-if-changed=../migrations/postgres");
}
