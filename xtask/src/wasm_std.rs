//! Makes sure that the active toolchain can compile for `wasm32-unknown-unknown`.
//!
//! Three ways, in this order: `rustup target add`. The standard library built from a source archive
//! named by `FIRSTLIGHT_RUST_STD_SOURCE`. The standard library built from Debian's package
//! `rust-src` of the same version.
//!
//! Invariants: the version of the source is the version of the compiler; the toolchain is changed
//! only after the build has succeeded; the link to the sources is removed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use harness::paths;

use crate::shell::{capture, quietly, say};

const TARGET: &str = "wasm32-unknown-unknown";
const SOURCE_VARIABLE: &str = "FIRSTLIGHT_RUST_STD_SOURCE";

/// Adds the target when it is missing.
pub(crate) fn ensure() -> Result<()> {
    let sysroot =
        PathBuf::from(capture(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    if has_core(&libraries) {
        return Ok(());
    }
    say(&format!("adding the Rust target {TARGET}"));
    let rustup = capture(Command::new("rustup").args(["target", "add", TARGET]));
    if rustup.is_ok() && has_core(&libraries) {
        return forget_builds();
    }
    say("rustup could not download it; building the standard library from source instead");
    let work = paths::root().join("target/wasm-std");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    let library = source(&work).context(format!(
        "get the sources of the Rust standard library. Where rustup cannot download, set \
            {SOURCE_VARIABLE} to an archive (.tar.xz) of the folder `library/` of this Rust version"
    ))?;
    build(&work, &library, &sysroot, &libraries)?;
    forget_builds()?;
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))
}

/// Removes what was compiled against another standard library; cargo does not notice that it has
/// changed.
fn forget_builds() -> Result<()> {
    match fs::remove_dir_all(paths::root().join("target").join(TARGET)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("remove the builds for wasm32")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns whether the folder holds a compiled `core`.
fn has_core(libraries: &Path) -> bool {
    fs::read_dir(libraries).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// Returns a folder `library` with the sources of this compiler's standard library.
fn source(work: &Path) -> Result<PathBuf> {
    if let Some(archive) = std::env::var_os(SOURCE_VARIABLE) {
        say(&format!("using the sources in {}", archive.to_string_lossy()));
        quietly(Command::new("tar").arg("-xJf").arg(&archive).current_dir(work))?;
        return find_library(work);
    }
    debian_source(work)?;
    find_library(work)
}

/// Finds `library/std` at most eight folders deep.
fn find_library(work: &Path) -> Result<PathBuf> {
    let found = capture(Command::new("find").arg(work).args([
        "-maxdepth",
        "8",
        "-path",
        "*/library/std/Cargo.toml",
    ]))?;
    let manifest = found.lines().next().context("find library/std/Cargo.toml in the sources")?;
    let library =
        Path::new(manifest).ancestors().nth(2).context("find the folder above library/std")?;
    Ok(library.to_path_buf())
}

/// Downloads and unpacks Debian's `rust-src` of the compiler's version, without installing it.
///
/// A version that the installed release does not have is looked for in the backports of the release
/// that follows it; the address is the one this machine already uses.
fn debian_source(work: &Path) -> Result<()> {
    let version = capture(Command::new("rustc").arg("--version"))?;
    let version =
        version.split_whitespace().nth(1).context("read the version of rustc")?.to_owned();
    let targets = capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]))
    .context("ask apt-get for its sources (this way works on Debian only)")?;
    let address = targets
        .lines()
        .find(|line| line.trim_end_matches('/').ends_with("/debian"))
        .context("find the address of Debian's packages in apt's sources")?;
    say(&format!("downloading Debian's rust-src {version}"));
    let lists = work.join("apt");
    fs::create_dir_all(lists.join("lists/partial"))?;
    fs::create_dir_all(lists.join("cache/archives/partial"))?;
    let suites = ["trixie-backports", "trixie", "forky", "sid"];
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let mut failures = Vec::new();
    for suite in suites {
        let list = lists.join("sources.list");
        fs::write(&list, format!("deb [signed-by={keyring}] {address} {suite} main\n"))?;
        let apt = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            let folders = [
                ("Etc::SourceList", &list),
                ("State::Lists", &lists.join("lists")),
                ("Cache", &lists.join("cache")),
            ];
            for (name, folder) in folders {
                command.arg("-o").arg(format!("Dir::{name}={}", folder.display()));
            }
            command.args([
                "-o",
                "Dir::Etc::SourceParts=-",
                "-o",
                "APT::Sandbox::User=root",
                "-o",
                "Debug::NoLocking=1",
            ]);
            capture(command.args(arguments).current_dir(work))
        };
        let tried = apt("apt-get", &["update"]).and_then(|_| {
            let wanted = apt("apt-cache", &["madison", "rust-src"])?;
            let package = wanted
                .lines()
                .filter_map(|line| line.split('|').nth(1).map(str::trim))
                .find(|found| found.starts_with(&version))
                .with_context(|| format!("find rust-src {version} in {suite}"))?
                .to_owned();
            apt("apt-get", &["download", &format!("rust-src={package}")])
        });
        match tried {
            Ok(_) => return unpack(work),
            Err(error) => failures.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("find rust-src {version}: {}", failures.join("; "))
}

/// Unpacks the one downloaded package.
fn unpack(work: &Path) -> Result<()> {
    for entry in fs::read_dir(work)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return quietly(Command::new("dpkg-deb").arg("-x").arg(&path).arg(work.join("deb")));
        }
    }
    bail!("find the downloaded package in {}", work.display())
}

/// Compiles the standard library and copies it into the toolchain.
fn build(work: &Path, library: &Path, sysroot: &Path, libraries: &Path) -> Result<()> {
    let link = sysroot.join("lib/rustlib/src/rust");
    let made = !link.exists();
    if made {
        fs::create_dir_all(link.parent().context("find the folder of the sources")?)?;
        let above = library.parent().context("find the folder above library")?;
        std::os::unix::fs::symlink(above, &link)
            .with_context(|| format!("link {}", link.display()))?;
    }
    let result = compile(work);
    if made {
        fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
    }
    result?;
    fs::create_dir_all(libraries).with_context(|| format!("create {}", libraries.display()))?;
    let dependencies = work.join("empty/target").join(TARGET).join("release/deps");
    for entry in fs::read_dir(&dependencies)? {
        let path = entry?.path();
        let name =
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_library = path.extension().is_some_and(|extension| extension == "rlib");
        if is_library && !name.starts_with("libempty-") {
            fs::copy(&path, libraries.join(&name))
                .with_context(|| format!("copy {name} into the toolchain"))?;
        }
    }
    if !has_core(libraries) {
        bail!("find the compiled core library in {}", libraries.display());
    }
    Ok(())
}

/// Builds an empty crate together with the standard library.
fn compile(work: &Path) -> Result<()> {
    let empty = work.join("empty");
    fs::create_dir_all(empty.join("src"))?;
    fs::write(empty.join("src/lib.rs"), "")?;
    fs::write(
        empty.join("Cargo.toml"),
        "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n",
    )?;
    quietly(
        Command::new("cargo")
            .args(["build", "-Zbuild-std=std,panic_abort", "--release", "--target", TARGET])
            .current_dir(&empty)
            .env("RUSTC_BOOTSTRAP", "1")
            // Without bitcode a later build with LTO fails: "can't find section .llvmbc".
            .env("RUSTFLAGS", "-Cembed-bitcode=yes")
            .env("CARGO_TARGET_DIR", empty.join("target")),
    )
}
