//! The command line as people type it.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn help(command: &[&str]) -> String {
    let mut root = Cli::command();
    root.build();
    let mut at = &mut root;
    for name in command {
        at = at.find_subcommand_mut(name).expect("the command is there");
    }
    at.render_long_help().to_string()
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn everyday_lines_are_understood() {
    for line in [
        "wonder dev --exit --ephemeral",
        "wonder serve --listen 0.0.0.0:80 --auth keys --data-dir /x",
        "wonder apply -f a.yaml -f folder",
        "wonder validate a.yaml b.yaml",
        "wonder run a.yaml --input {} --label a=b --label c=d= --wait -o json --timeout 90s",
        "wonder run name@3 --local",
        "wonder run folder --local --allow-private-host a --allow-private-host b",
        "wonder runs list --status running,failed --label a=b -o jsonl",
        "wonder runs list --parent run_1",
        "wonder runs show run_1 --server http://h:1",
        "wonder runs watch run_1",
        "wonder runs cancel run_1 --reason enough",
        "wonder events list --run run_1 --limit 1000",
        "wonder events tail --type run_completed --after 00000001:5",
        "wonder compare review --from 1 --to 2 --runs 500 --check",
        "wonder compare review --to review.yaml",
        "wonder state run_1 --at 5",
        "wonder runs watch run_1 --speed 10",
        "wonder events tail --run run_1 --speed 0.5",
        "wonder bundle export run_06h2kngeatr5db7tdqgp13lk7c -f a.wonder --offline --data-dir /x",
        "wonder bundle open a.wonder -o yaml",
        "wonder bundle state a.wonder --at 2026-01-01T00:00:00Z",
        "wonder bundle state a.wonder --step -o jsonl",
        "wonder bundle explain a.wonder --token 3 --at 5",
        "wonder bundle diff a.wonder b.wonder",
        "wonder bundle diff a.wonder --from 2 --to 9",
        "wonder bundle fork a.wonder --at 4 --result 2={} --definition b.yaml --adopt successes",
        "wonder bundle test a.wonder b.wonder --definition b.yaml --strict",
        "wonder waiting run_1",
        "wonder gates --assignee key_1 --status open --workflow wf_1 -o json",
        "wonder gates show run_1.2",
        "wonder gates answer run_1.2 --approve --value {} --comment fine",
        "wonder gates answer run_1.2 --reject",
        "wonder signal run_1 paid --payload {} --transient",
        "wonder pause run_1 --reason night",
        "wonder resume run_1",
        "wonder state run_1 --at 2026-01-01T00:00:00Z",
        "wonder bench sequence --quick --n 5 --clients 2",
        "wonder bench --url http://127.0.0.1:1",
        "wonder doctor",
        "wonder completions bash",
        "wonder projections rebuild runs",
        "wonder config --log debug -o json",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_is_wrong_is_a_usage_error_with_code_2() {
    for line in [
        "wonder",
        "wonder gates answer run_1.2",
        "wonder gates answer run_1.2 --approve --reject",
        "wonder fly",
        "wonder run",
        "wonder run a.yaml --label novalue",
        "wonder run a.yaml --allow-private-host a",
        "wonder run a.yaml --timeout soon",
        "wonder runs list --limit 0",
        "wonder compare review --from 0",
        "wonder compare review --runs 501",
        "wonder events list --limit 1001",
        "wonder state run_1 --at yesterday",
        "wonder events tail --speed 2",
        "wonder runs watch run_1 --speed 0",
        "wonder bundle export run_1 -f a.wonder",
        "wonder bundle diff a.wonder",
        "wonder bundle state a.wonder --at 3 --step",
        "wonder bundle test",
        "wonder bundle test a.wonder --strict",
        "wonder serve --listen nowhere",
        "wonder dev --no-demo --exit",
        "wonder dev --ephemeral --data-dir /x",
        "wonder -o xml doctor",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("{line} is understood"));
        assert!(error.exit_code() == 2 || line == "wonder", "{line}: {}", error.exit_code());
    }
}

#[test]
fn help_documents_the_exit_codes() {
    for command in [&[][..], &["dev"], &["run"], &["runs", "watch"], &["validate"], &["apply"]] {
        let text = help(command);
        for code in ["0  completed", "2  usage", "3  cancelled", "4  timed out", "5  server"] {
            assert!(text.contains(code), "{command:?} lacks {code:?}:\n{text}");
        }
    }
}
