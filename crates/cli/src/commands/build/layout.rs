//! A named context that is an image in an OCI layout on the disk (`oci-layout://DIR[:TAG|@DIGEST]`).

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wharf_archive::{Entry, Kind};
use wharf_reference::Digest;

use crate::failure::Outcome;
use crate::json::text;
use crate::tar::{PackError, Writer};

/// What the name begins with that the engine has it under while the build goes on.
const PREFIX: &str = "localhost/wharf-build-context-";
/// No index or manifest is larger (OCI distribution-spec).
const MAX_JSON: u64 = 4 << 20;
/// What an index of indexes may be; more is a circle.
const MAX_DEPTH: u32 = 4;

/// One image of a layout, or an index of such.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    /// Its name for the engine.
    pub(super) name: String,
    /// What the archive's own index says.
    index: Value,
    /// What it is made of.
    blobs: BTreeSet<Digest>,
}

impl Layout {
    /// Finds what `place` means: a directory, with a tag or digest behind it. Without one it is `latest`, or the only one.
    pub(super) fn find(context: &str, place: &str) -> Outcome<Self> {
        let bad = |why: String| format!("invalid build context {context}=oci-layout://{place}: {why}");
        let (dir, wanted) = parse(place).map_err(&bad)?;
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut layout =
            Self { name: format!("{PREFIX}{digits}"), index: Value::Null, blobs: BTreeSet::new(), dir: dir.to_owned() };
        let index = layout.read(&dir.join("index.json")).map_err(&bad)?;
        let all: Vec<&Value> = index["manifests"].as_array().into_iter().flatten().collect();
        let found = match wanted {
            Wanted::Digest(digest) => all.iter().find(|entry| entry["digest"] == digest.as_str()).copied(),
            Wanted::Tag(tag) => all.iter().find(|entry| has_tag(entry, tag)).copied(),
            Wanted::Any => match all.as_slice() {
                [one] => Some(*one),
                all => all.iter().find(|entry| has_tag(entry, "latest")).copied(),
            },
        };
        let entry = found.ok_or_else(|| bad("there is no such image in it".to_owned()))?;
        layout.take(entry, 0).map_err(&bad)?;
        let mut own = json!({ "mediaType": entry["mediaType"], "digest": entry["digest"], "size": entry["size"] });
        own["annotations"] = json!({ "io.containerd.image.name": format!("{}:latest", layout.name) });
        let kind = "application/vnd.oci.image.index.v1+json";
        layout.index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [own] });
        Ok(layout)
    }

    fn read(&self, path: &Path) -> Result<Value, String> {
        let failed = |error: &std::io::Error| wharf_report::path("open", path, error);
        let meta = std::fs::metadata(path).map_err(|error| failed(&error))?;
        if meta.len() > MAX_JSON {
            return Err(format!("{} has more than {MAX_JSON} bytes", path.display()));
        }
        let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Notes what a descriptor names, and what that names. Of images of other platforms not all may be there.
    fn take(&mut self, descriptor: &Value, depth: u32) -> Result<(), String> {
        let digest = Digest::parse(text(&descriptor["digest"])).map_err(|error| error.to_string())?;
        if depth > MAX_DEPTH || !self.blob(&digest).exists() {
            return if depth == 0 { Err(format!("{digest} is not in it")) } else { Ok(()) };
        }
        if !self.blobs.insert(digest.clone()) {
            return Ok(());
        }
        let kind = text(&descriptor["mediaType"]);
        let (index, manifest) = (kind.contains("index") || kind.contains("manifest.list"), kind.contains("manifest"));
        if !index && !manifest {
            return Ok(());
        }
        let about = self.read(&self.blob(&digest))?;
        let named = about["manifests"].as_array().into_iter().flatten();
        let named = named.chain(about["layers"].as_array().into_iter().flatten()).chain(about.get("config"));
        named.cloned().collect::<Vec<_>>().iter().try_for_each(|one| self.take(one, depth + 1))
    }

    /// Writes it as an archive.
    pub(super) fn write<W: Write>(&self, output: W) -> Result<W, PackError> {
        let mut writer = Writer::new(output);
        let mut put = |name: String, content: &mut dyn std::io::Read, size: u64| -> Result<(), PackError> {
            let (path, mode) = (name.into_bytes(), 0o644);
            let (link, xattrs) = (Vec::new(), std::collections::BTreeMap::new());
            writer.header(&Entry {
                path,
                kind: Kind::File,
                mode,
                uid: 0,
                gid: 0,
                size,
                mtime: (0, 0),
                link,
                device: (0, 0),
                xattrs,
            })?;
            let mut content = content;
            Ok(writer.content(&mut content, size)?)
        };
        let version = br#"{"imageLayoutVersion":"1.0.0"}"#;
        put("oci-layout".into(), &mut version.as_slice(), version.len() as u64)?;
        let index = self.index.to_string().into_bytes();
        put("index.json".into(), &mut index.as_slice(), index.len() as u64)?;
        for digest in &self.blobs {
            let path = self.blob(digest);
            let failed = |source| PackError::Read { call: "open", path: path.clone(), source };
            let mut file = std::fs::File::open(&path).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            let name = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
            put(name, &mut file, size)?;
        }
        Ok(writer.finish()?)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Any,
    Tag(&'a str),
    Digest(Digest),
}

fn parse(place: &str) -> Result<(&Path, Wanted<'_>), String> {
    if let Some((dir, digest)) = place.rsplit_once('@') {
        return Ok((Path::new(dir), Wanted::Digest(Digest::parse(digest).map_err(|error| error.to_string())?)));
    }
    let tag = place.rsplit_once(':').filter(|(_, tag)| !tag.contains('/') && !tag.is_empty());
    Ok(match tag.filter(|_| !Path::new(place).is_dir()) {
        Some((dir, tag)) => (Path::new(dir), Wanted::Tag(tag)),
        None => (Path::new(place), Wanted::Any),
    })
}

/// Whether an entry of an index is called so (OCI image-spec, "Annotations").
fn has_tag(entry: &Value, tag: &str) -> bool {
    let annotations = &entry["annotations"];
    let name = text(&annotations["org.opencontainers.image.ref.name"]);
    let whole = text(&annotations["io.containerd.image.name"]);
    name == tag || name.rsplit_once(':').is_some_and(|(_, own)| own == tag) || whole.ends_with(&format!(":{tag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_a_tag_or_a_digest_behind_them() {
        let digest = Digest::sha256(b"");
        let with_digest = format!("dir@{digest}");
        for (place, dir, wanted) in [
            ("dir", "dir", Wanted::Any),
            ("/a/dir:v1", "/a/dir", Wanted::Tag("v1")),
            ("/a:b/dir", "/a:b/dir", Wanted::Any),
            (with_digest.as_str(), "dir", Wanted::Digest(digest.clone())),
        ] {
            assert_eq!(parse(place).unwrap(), (Path::new(dir), wanted), "{place}");
        }
        assert!(parse("dir@sha256:x").is_err());
    }

    #[test]
    fn what_an_image_is_made_of_is_sent_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8], kind: &str| {
            let digest = Digest::sha256(bytes);
            std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
            json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
        };
        let (config, layer) = (put(b"{}", "x.config"), put(b"layer", "x.layer"));
        put(b"another", "x");
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string();
        let mut one = put(manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json");
        let mut two = one.clone();
        one["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
        two["annotations"] = json!({ "org.opencontainers.image.ref.name": "v2" });
        std::fs::write(dir.path().join("index.json"), json!({ "manifests": [one, two] }).to_string()).unwrap();
        let place = dir.path().to_string_lossy().into_owned();
        assert!(Layout::find("x", &place).unwrap_err().text.contains("no such image"));
        assert!(Layout::find("x", &format!("{place}:v3")).is_err());
        let layout = Layout::find("x", &format!("{place}:v2")).unwrap();
        let archive = layout.write(Vec::new()).unwrap();
        let mut reader = wharf_archive::Reader::new(archive.as_slice());
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        assert_eq!(names.len(), 2 + 3, "{names:?}");
        assert_eq!(
            layout.index["manifests"][0]["annotations"]["io.containerd.image.name"],
            format!("{}:latest", layout.name)
        );
    }
}
