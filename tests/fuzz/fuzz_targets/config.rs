//! The configuration file: read, or refused with what is wrong on a line each; printed and read again it is the same; and what a
//! reference stands for shows in neither.

#![no_main]

use std::{fs, path::PathBuf, process, sync::OnceLock};

use astra_host::config_file::{ConfigFile, ConfigFileError, read};

const SECRET: &str = "s3cr3t";

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "TOKEN" => SECRET,
        "DIR" => "/s3cr3t/a",
        "PATH" => "/s3cr3t/*",
        "URL" => "https://s3cr3t.example:81",
        "NUMBER" => "7",
        "TIME" => "41s",
        "EMPTY" => "",
        "NUL" => "s3cr3t\0",
        _ => return None,
    };
    Some(value.to_owned())
}

fn dir() -> &'static PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("astra-fuzz-config-{}", process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("token"), "s3cr3t\n").expect("writes");
        dir
    })
}

fn keeps_secrets(input: &str, output: &str) {
    assert!(input.contains(SECRET) || !output.contains(SECRET), "a secret shows: {output}");
}

fn same(one: &ConfigFile, other: &ConfigFile) {
    assert_eq!(one.config, other.config);
    assert_eq!((one.control_left_out, one.state_left_out), (other.control_left_out, other.state_left_out));
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let path = dir().join("astra.toml");
    fs::write(&path, text).expect("writes");
    match read(&path, environment) {
        Ok(file) => {
            let printed = file.print();
            keeps_secrets(text, &printed);
            // Beside it: it may refer to itself.
            let beside = dir().join("printed.toml");
            fs::write(&beside, &printed).expect("writes");
            let again = read(&beside, environment).unwrap_or_else(|error| panic!("{error}\n{printed}"));
            same(&file, &again);
            assert_eq!(printed, again.print());
        }
        Err(error) => {
            let told = error.to_string();
            keeps_secrets(text, &told);
            let lines = match &error {
                ConfigFileError::Wrong { problems } => problems.clone(),
                _ => vec![told],
            };
            assert!(!lines.is_empty());
            for line in lines {
                assert!(!line.contains(char::is_control), "not a line: {line:?}");
            }
        }
    }
});
