//! The examples in other languages: built by their own toolchains where those are at hand, and built again only when their sources
//! have changed.
//!
//! A build is what the example's README says, with another output. Processes of a test run share it behind a lock for each example.
//! Nothing is installed here.

use std::{
    fs,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::{root, target_dir};

/// How an example is built.
struct Recipe {
    example: &'static str,
    environment: &'static [(&'static str, &'static str)],
    /// Succeeds where the toolchain is at hand, and leaves nothing.
    probe: &'static [&'static str],
    /// The name of the module to make is the last argument.
    build: &'static [&'static str],
    /// What to do where it is not, in the example's folder.
    install: &'static str,
}

const RECIPES: [Recipe; 5] = [
    Recipe {
        example: "python",
        environment: &[],
        probe: &[".venv/bin/componentize-py", "--version"],
        build: &[".venv/bin/componentize-py", "-d", "wit", "-w", "handler", "componentize", "app", "-o"],
        install: "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
    },
    Recipe {
        example: "javascript",
        environment: &[],
        probe: &["npm", "ls"],
        build: &["npm", "run", "build", "--", "--out"],
        install: "npm ci",
    },
    Recipe {
        example: "hono",
        environment: &[],
        probe: &["npm", "ls"],
        build: &["npm", "run", "build", "--", "--out"],
        install: "npm ci",
    },
    Recipe {
        example: "c",
        environment: &[],
        probe: &["clang", "--target=wasm32-wasi", "app.c", "-o", "/dev/null"],
        build: &["clang", "--target=wasm32-wasi", "-O2", "-Wall", "-Wextra", "-Werror", "app.c", "-o"],
        install: "apt-get install clang lld wasi-libc libclang-rt-dev-wasm32",
    },
    Recipe {
        example: "go",
        environment: &[("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOTOOLCHAIN", "local")],
        probe: &["go", "list"],
        build: &["go", "build", "-trimpath", "-ldflags=-s -w", "-o"],
        install: "install Go 1.22 or newer",
    },
];

/// The module of an example in another language; without its toolchain, what is to be installed.
pub(crate) fn foreign_guest(example: &str) -> Result<PathBuf, String> {
    let recipe = RECIPES.iter().find(|recipe| recipe.example == example).expect("an example with a recipe");
    let modules = target_dir().join("languages");
    fs::create_dir_all(&modules).expect("the target directory can be written to");
    let lock = File::create(modules.join(format!("{example}.lock"))).expect("the target directory can be written to");
    lock.lock().expect("a lock on a file of ours");

    let module = modules.join(format!("{example}.wasm"));
    let built_from = modules.join(format!("{example}.digest"));
    let digest = recipe.digest();
    if module.is_file() && fs::read_to_string(&built_from).is_ok_and(|built| built == digest) {
        return Ok(module);
    }
    recipe.probe()?;
    recipe.build(&module);
    fs::write(&built_from, digest).expect("the target directory can be written to");
    Ok(module)
}

impl Recipe {
    fn folder(&self) -> PathBuf {
        root().join("examples").join(self.example)
    }

    fn run(&self, command: &[&str], last: Option<&Path>) -> std::io::Result<Output> {
        // A program with a path is in the example's folder, whatever the working directory of the tests.
        let program = match command[0] {
            path if path.contains('/') => self.folder().join(path),
            name => name.into(),
        };
        let mut run = Command::new(program);
        run.args(&command[1..]).args(last).envs(self.environment.iter().copied());
        run.current_dir(self.folder()).stdin(Stdio::null()).output()
    }

    fn probe(&self) -> Result<(), String> {
        let reason = match self.run(self.probe, None) {
            Ok(found) if found.status.success() => return Ok(()),
            Ok(found) => {
                let said = String::from_utf8_lossy(&found.stderr).into_owned();
                said.lines().next().unwrap_or("it fails").to_owned()
            }
            Err(error) => error.to_string(),
        };
        Err(format!("`{}` in examples/{}: {reason}; to have it: {}", self.probe.join(" "), self.example, self.install))
    }

    fn build(&self, module: &Path) {
        let unfinished = module.with_extension("unfinished");
        let built = self.run(self.build, Some(&unfinished)).expect("it could be run a moment ago");
        let said = [built.stdout, built.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(built.status.success(), "examples/{} cannot be built:\n{said}", self.example);
        fs::rename(unfinished, module).expect("it has been built");
    }

    /// Changes with the recipe and with every file that a build may read.
    fn digest(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (self.environment, self.build).hash(&mut hasher);
        hash_folder(&self.folder(), &mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

fn hash_folder(folder: &Path, hasher: &mut DefaultHasher) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("can be listed").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_made = name.starts_with('.') || name.ends_with(".wasm") || ["node_modules", "build"].contains(&&*name);
        match is_made {
            true => {}
            false if path.is_dir() => hash_folder(&path, hasher),
            false => (&*name, fs::read(&path).expect("can be read")).hash(hasher),
        }
    }
}
