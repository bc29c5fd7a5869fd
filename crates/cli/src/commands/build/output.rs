//! `--output`: what becomes of the result, beside its place in the engine's store.

use std::fs;
use std::path::{Path, PathBuf};

use wharf_archive::{UnpackOptions, Whiteouts, unpack};
use wharf_client::Client;
use wharf_rooted_path::RootDir;

use super::result::Made;
use crate::download;
use crate::failure::{Failure, Outcome};
use crate::parse::{Matches, commas};

/// How files are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// What the names of statements about them begin with.
    prefix: String,
    /// Whether each platform's are in a directory of their own; else where there are several.
    split: Option<bool>,
}

/// How an image is in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pack {
    /// Its names there; without one those that it has here.
    names: Vec<String>,
    /// As the engine is asked for it; `any` without one.
    compression: Option<String>,
}

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The files, in a directory.
    Local(PathBuf, Files),
    /// The files, as an archive; to standard output without a place.
    Tar(Option<String>, Files),
    /// The image as an archive that `load` takes, which is an OCI layout, too.
    Archive(Option<String>, Pack),
    /// The image as a directory with an OCI layout.
    Layout(PathBuf, Pack),
    /// In the store, under this name too; pushed if that is asked, and in this form.
    Image { name: Option<String>, push: bool, compression: Option<String> },
}

/// Refuses what is no output.
pub(super) fn check(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

fn parse(text: &str) -> Result<Output, String> {
    let fields = commas(text);
    if let [place] = fields.as_slice()
        && !place.contains('=')
    {
        let files = Files::default();
        return Ok(if place == "-" { Output::Tar(None, files) } else { Output::Local(place.into(), files) });
    }
    let (mut kind, mut dest, mut name, mut push, mut tar) = (String::new(), None, None, false, true);
    let (mut compression, mut forced, mut files) = (None, false, Files::default());
    for field in fields {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}: expected key=value"))?;
        let on = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("invalid value for {key}: {value}")),
        };
        match key {
            "type" => value.clone_into(&mut kind),
            "dest" => dest = Some(value.to_owned()),
            "name" => name = Some(value.to_owned()),
            "push" => push = on()?,
            // Without one of these the layers go as they came.
            "compression" if matches!(value, "gzip" | "zstd" | "uncompressed") => compression = Some(value.to_owned()),
            "compression" => {
                return Err(format!(
                    "compression {value} is not supported: gzip, zstd and, in archives, uncompressed are"
                ));
            }
            "force-compression" => forced = on()?,
            key if annotation(key, value).is_some() => {}
            "tar" => tar = on()?,
            "attestation-prefix" => value.clone_into(&mut files.prefix),
            "platform-split" => files.split = Some(on()?),
            // The result is the same with and without: what a build makes has no later time than SOURCE_DATE_EPOCH.
            "unpack" | "store" | "oci-mediatypes" | "rewrite-timestamp" => drop(on()?),
            other => return Err(format!("unsupported key {other:?} in output {text:?}")),
        }
    }
    let place = dest.clone().filter(|dest| dest != "-");
    let needs = |what: &str| format!("dest is required for {what} output");
    let archive = matches!(kind.as_str(), "oci" | "docker") && (!tar || kind == "oci" || dest.is_some());
    if !archive && compression.as_deref() == Some("uncompressed") {
        return Err("compression uncompressed is not supported for images: gzip and zstd are".into());
    }
    // As BuildKit has it: what is compressed already stays as it is, unless another form is wanted.
    let names = name.iter().flat_map(|names| names.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let names = names.map(str::to_owned).collect::<Vec<_>>();
    for name in &names {
        wharf_reference::Reference::parse(name)
            .map_err(|error| format!("invalid name {name:?} of an output: {error}"))?;
    }
    let pack = Pack { names, compression: compression.clone().filter(|form| form != "gzip" || forced) };
    Ok(match kind.as_str() {
        "local" => Output::Local(place.ok_or_else(|| needs("local"))?.into(), files),
        "tar" => Output::Tar(place, files),
        "oci" | "docker" if !tar => Output::Layout(place.ok_or_else(|| needs("a layout"))?.into(), pack),
        "oci" => Output::Archive(place, pack),
        // Without a place it is the engine's store, which has it anyway.
        "docker" if dest.is_none() => Output::Image { name, push: false, compression },
        "docker" => Output::Archive(place, pack),
        "image" => Output::Image { name, push, compression },
        "registry" => Output::Image { name, push: true, compression },
        "" => return Err(format!("type is required for output: {text:?}")),
        other => return Err(format!("unknown type of output {other:?}: local, tar, oci, docker, image or registry")),
    })
}

/// `annotation[-TYPE][[PLATFORM]].KEY` in the form that `--annotation` has; nothing for another key.
fn annotation(key: &str, value: &str) -> Option<String> {
    let rest = key.strip_prefix("annotation")?;
    // Neither types nor platforms have dots in them.
    let (place, name) = rest.split_once('.')?;
    let (kind, platform) = place.split_once('[').map_or((place, None), |(kind, platform)| (kind, Some(platform)));
    let kind = if kind.is_empty() { "manifest" } else { kind.strip_prefix('-')? };
    let platform = platform.map(|platform| format!("[{platform}")).unwrap_or_default();
    Some(format!("{kind}{platform}:{name}={value}"))
}

/// What outputs say is to be said of the image.
pub(super) fn annotations(matches: &Matches) -> Vec<String> {
    let fields = matches.all("output").iter().flat_map(|text| commas(text));
    fields.filter_map(|field| field.split_once('=').and_then(|(key, value)| annotation(key, value))).collect()
}

/// All that are asked for.
pub(super) fn of(matches: &Matches) -> Outcome<Vec<Output>> {
    let mut all = Vec::new();
    for text in matches.all("output") {
        all.push(parse(text)?);
    }
    if matches.on("push") {
        all.push(Output::Image { name: None, push: true, compression: None });
    }
    let stdout = all.iter().filter(|output| output.is_stdout()).count();
    if stdout > 1 {
        return Err("only one output can go to standard output".into());
    }
    let stated = !super::attest::of(matches)?.is_empty();
    for output in &all {
        if let Output::Archive(_, pack) | Output::Layout(_, pack) = output
            && let Some(compression) = pack.compression.as_ref().filter(|_| stated)
        {
            return Err(format!(
                "compression={compression} of an archive is not supported where something is stated about the result: leave \
                 out --provenance and --sbom, or the compression"
            )
            .into());
        }
        match output {
            Output::Tar(place, _) | Output::Archive(place, _) => {
                download::refuse_terminal(place.as_deref())?;
                download::check(place.as_deref())?;
            }
            _ => {}
        }
    }
    Ok(all)
}

impl Output {
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Tar(None, _) | Self::Archive(None, _))
    }

    /// Further names of the result.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Image { name: Some(name), .. } => name.split(',').map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// Writes the files or the images of what was made. `names` are those by which the engine knows it, for an archive.
    pub(super) async fn write(&self, client: &Client, made: &[Made], names: &[String]) -> Outcome {
        match self {
            Self::Image { .. } => Ok(()),
            Self::Tar(place, files) => {
                let [one] = made else {
                    return Err("type=tar has the files of one platform: use type=local for several".into());
                };
                download::save(files.of(client, one, "").send().await?, place.as_deref()).await
            }
            Self::Archive(place, pack) => download::save(pack.of(client, made, names).await?, place.as_deref()).await,
            Self::Local(dir, files) => {
                for one in made {
                    // As BuildKit has it.
                    let platform = one.platform.as_ref().map(|name| name.replace('/', "_"));
                    let (split, several) = (files.split.unwrap_or(made.len() > 1), made.len() > 1);
                    let suffix = platform.as_ref().filter(|_| several && !split).map(|name| format!(".{name}"));
                    let response = files.of(client, one, suffix.as_deref().unwrap_or_default()).send().await?;
                    let below = platform.filter(|_| split);
                    into(response, &below.map_or_else(|| dir.clone(), |name| dir.join(name))).await?;
                }
                Ok(())
            }
            Self::Layout(dir, pack) => into(pack.of(client, made, names).await?, dir).await,
        }
    }
}

impl Files {
    /// Asks for the files of an image, and for what is stated about them, where that is in an index. The names of statements
    /// end with `suffix` before their extension.
    fn of<'a>(&self, client: &'a Client, made: &Made, suffix: &str) -> wharf_client::Request<'a> {
        client
            .get(&format!("/images/{}/rootfs", made.id))
            .query_some("index", made.digest.as_deref())
            .query_some("prefix", Some(&self.prefix).filter(|text| !text.is_empty()))
            .query_some("suffix", Some(suffix).filter(|text| !text.is_empty()))
    }
}

impl Pack {
    /// Asks for what was made as an archive. `names` are those by which the engine knows it.
    async fn of(&self, client: &Client, made: &[Made], names: &[String]) -> Outcome<wharf_client::Response> {
        let mut request = client.get("/images/get").query("compression", self.compression.as_deref().unwrap_or("any"));
        if names.is_empty() {
            request = made.iter().fold(request, |request, one| request.query("names", &one.id));
        }
        request = names.iter().fold(request, |request, name| request.query("names", name));
        Ok(self.names.iter().fold(request, |request, name| request.query("as", name)).send().await?)
    }
}

/// Unpacks a stream into a directory. What is there stays, unless it has the name of what comes.
pub(super) async fn into(mut response: wharf_client::Response, dir: &Path) -> Outcome {
    fs::create_dir_all(dir).map_err(|error| wharf_report::path("mkdir", dir, &error))?;
    let root = RootDir::open(dir).map_err(|error| Failure::new(wharf_report::chain(&error)))?;
    let (sender, chunks) = std::sync::mpsc::sync_channel::<bytes::Bytes>(16);
    let unpacking = tokio::task::spawn_blocking(move || {
        let input = Chunks { chunks, current: bytes::Bytes::new() };
        let options = UnpackOptions {
            whiteouts: Whiteouts::Literal,
            // As BuildKit has it: they are the user's own.
            same_owner: false,
            ..UnpackOptions::default()
        };
        unpack(input, &root, &options)
    });
    while let Some(chunk) = response.chunk().await? {
        let sender = sender.clone();
        let sent = tokio::task::spawn_blocking(move || sender.send(chunk)).await;
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(|error| error.to_string())?;
    unpacked
        .map(drop)
        .map_err(|error| format!("cannot write {}: {}", dir.display(), wharf_report::chain(&error)).into())
}

struct Chunks {
    chunks: std::sync::mpsc::Receiver<bytes::Bytes>,
    current: bytes::Bytes,
}

impl std::io::Read for Chunks {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.recv() {
                Ok(chunk) => self.current = chunk,
                Err(_) => return Ok(0),
            }
        }
        let count = bytes.len().min(self.current.len());
        bytes[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(parse("out").unwrap(), Output::Local("out".into(), Files::default()));
        assert_eq!(parse("-").unwrap(), Output::Tar(None, Files::default()));
        assert_eq!(parse("type=local,dest=d").unwrap(), Output::Local("d".into(), Files::default()));
        let files = Files { prefix: "p-".into(), split: Some(false) };
        let text = "type=local,dest=d,attestation-prefix=p-,platform-split=false";
        assert_eq!(parse(text).unwrap(), Output::Local("d".into(), files));
        assert_eq!(parse("type=tar,dest=f").unwrap(), Output::Tar(Some("f".into()), Files::default()));
        assert_eq!(parse("type=oci,dest=-").unwrap(), Output::Archive(None, Pack::default()));
        assert_eq!(parse("type=oci,dest=d,tar=false").unwrap(), Output::Layout("d".into(), Pack::default()));
        let image = |name: Option<&str>, push| Output::Image { name: name.map(str::to_owned), push, compression: None };
        assert_eq!(parse("type=docker").unwrap(), image(None, false));
        assert_eq!(parse("type=docker,dest=f").unwrap(), Output::Archive(Some("f".into()), Pack::default()));
        let pack = |compression: Option<&str>| Pack {
            names: vec!["n".into(), "m:2".into()],
            compression: compression.map(str::to_owned),
        };
        for (text, expected) in [
            ("compression=gzip", None),
            ("compression=gzip,force-compression=true", Some("gzip")),
            ("compression=zstd", Some("zstd")),
            ("compression=uncompressed", Some("uncompressed")),
        ] {
            let parsed = parse(&format!("type=oci,dest=-,\"name=n, m:2\",{text}")).unwrap();
            assert_eq!(parsed, Output::Archive(None, pack(expected)), "{text}");
        }
        assert!(parse("type=image,compression=uncompressed").is_err());
        assert_eq!(parse("type=registry,name=a/b").unwrap(), image(Some("a/b"), true));
        assert_eq!(parse("type=image,push=true,annotation.a=b").unwrap(), image(None, true));
        let zstd =
            parse("type=registry,name=x,compression=zstd,force-compression=true,rewrite-timestamp=true").unwrap();
        assert_eq!(zstd, Output::Image { name: Some("x".into()), push: true, compression: Some("zstd".into()) });
        for (key, expected) in [
            ("annotation.org.x", "manifest:org.x=v"),
            ("annotation-index.k", "index:k=v"),
            ("annotation[linux/arm64].k", "manifest[linux/arm64]:k=v"),
            ("annotation-manifest-descriptor[linux/amd64].k.l", "manifest-descriptor[linux/amd64]:k.l=v"),
        ] {
            assert_eq!(annotation(key, "v").as_deref(), Some(expected), "{key}");
        }
        assert!(annotation("annotationx.k", "v").is_none() && annotation("annotation", "v").is_none());
        for bad in
            ["type=local", "type=x", "dest=d", "type=oci,tar=maybe", "type=tar,zzz=1", "type=image,compression=estargz"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
