//! What is asked of outputs, and what of it is refused.

use wharf_image::{Form, Packing};
use wharf_reference::Reference;

use crate::grpc::Status;
use crate::job::{is_by_digest, makes_image};
use crate::proto::control::Exporter;

/// The text of an option; empty without it.
pub(super) fn attribute<'a>(exporter: &'a Exporter, name: &str) -> &'a str {
    exporter.attrs.get(name).map(String::as_str).unwrap_or_default()
}

/// Refuses what is not done before anything is built.
///
/// # Errors
/// Names what that is.
pub(crate) fn check(exporters: &[Exporter]) -> Result<(), Status> {
    for exporter in exporters {
        let attribute_of = |name: &str| attribute(exporter, name);
        let is = |name: &str| matches!(attribute_of(name), "true" | "1");
        match exporter.kind.as_str() {
            "moby" | "image" => {
                repositories(exporter)?;
                form(exporter)?;
                for refused in ["unpack", "dangling-name-prefix", "store"] {
                    let usual = matches!((refused, attribute_of(refused)), ("unpack" | "store", "true" | "1"));
                    if exporter.attrs.contains_key(refused) && !usual && attribute_of(refused) != "false" {
                        let message = format!("the option {refused} of the exporter image is not supported");
                        return Err(Status::unsupported(message));
                    }
                }
                if is("push") && names(exporter).next().is_none() {
                    return Err(Status::invalid("tag is needed when pushing to registry"));
                }
            }
            "local" | "tar" => {
                if !matches!(attribute_of("platform-split"), "" | "true" | "1" | "false" | "0") {
                    return Err(Status::invalid(format!(
                        "non-bool value for platform-split: {}",
                        attribute_of("platform-split")
                    )));
                }
            }
            "docker" | "oci" => drop(packing(exporter)?),
            other => {
                let message =
                    format!("the exporter {other:?} is not supported: there are image, local, tar, docker and oci");
                return Err(Status::unsupported(message));
            }
        }
    }
    refuse_different(exporters)
}

/// There is one result, which all outputs get: refuses what only some of those are to have.
fn refuse_different(exporters: &[Exporter]) -> Result<(), Status> {
    let images: Vec<&Exporter> = exporters.iter().filter(|one| makes_image(one) || is_archive(one)).collect();
    if images.iter().any(|one| annotations([*one]) != annotations([images[0]])) {
        return Err(Status::unsupported(
            "different annotations of several outputs are not supported: build them one after another",
        ));
    }
    let mut forms = images.iter().filter(|one| makes_image(one)).map(|one| form(one));
    let first = forms.next().transpose()?.flatten();
    for other in forms {
        if other? != first {
            return Err(Status::unsupported(
                "different forms of compression of several images are not supported: build them one after another",
            ));
        }
    }
    Ok(())
}

pub(super) fn is_archive(exporter: &Exporter) -> bool {
    matches!(exporter.kind.as_str(), "docker" | "oci")
}

/// How the layers of an archive are asked for; as BuildKit has it with gzip, if nothing is said.
pub(super) fn packing(exporter: &Exporter) -> Result<Packing, Status> {
    match attribute(exporter, "compression") {
        "uncompressed" => Ok(Packing::Plain),
        _ => form(exporter).map(Packing::Compressed),
    }
}

/// The names that an exporter gives the image: between commas, whatever is around them.
pub(super) fn names(exporter: &Exporter) -> impl Iterator<Item = &str> {
    attribute(exporter, "name").split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Repositories in which an exporter names the image by its digest alone.
fn repositories(exporter: &Exporter) -> Result<Vec<Reference>, Status> {
    if !is_by_digest(exporter) {
        return Ok(Vec::new());
    }
    let one = |name: &str| {
        let reference = Reference::parse(name).map_err(|e| Status::invalid(format!("invalid name {name:?}: {e}")))?;
        match reference.tag().is_none() && reference.digest().is_none() {
            true => Ok(reference),
            false => Err(Status::invalid(format!("can't push tagged ref {reference} by digest"))),
        }
    };
    names(exporter).map(one).collect()
}

/// Those of all exporters.
pub(crate) fn all_repositories(exporters: &[Exporter]) -> Result<Vec<Reference>, Status> {
    let mut all: Vec<Reference> = Vec::new();
    for repository in exporters.iter().map(repositories).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        if !all.contains(&repository) {
            all.push(repository);
        }
    }
    Ok(all)
}

/// The form that layers are pushed in, of all exporters that make images; of those that make archives where there are none.
pub(crate) fn all_forms(exporters: &[Exporter]) -> Result<Option<Form>, Status> {
    if let Some(exporter) = exporters.iter().find(|exporter| makes_image(exporter)) {
        return form(exporter);
    }
    let packings = exporters.iter().filter(|exporter| is_archive(exporter)).map(packing);
    for packing in packings {
        if let Packing::Compressed(Some(form)) = packing? {
            return Ok(Some(form));
        }
    }
    Ok(None)
}

/// The form that layers are pushed in, if another is asked for than they have.
fn form(exporter: &Exporter) -> Result<Option<Form>, Status> {
    let force = matches!(attribute(exporter, "force-compression"), "true" | "1");
    match attribute(exporter, "compression") {
        "" => Ok(None),
        "gzip" => Ok(force.then_some(Form::Gzip)),
        "zstd" => Ok(Some(Form::Zstd)),
        other => Err(Status::unsupported(format!(
            "compression={other} of the exporter {} is not supported: there are gzip and zstd{}",
            exporter.kind,
            if is_archive(exporter) { ", and uncompressed" } else { "" }
        ))),
    }
}

/// Refuses archives whose layers are to have another form than those of the index that states something about the result.
///
/// # Errors
/// Names what is not done.
pub(crate) fn check_stated(exporters: &[Exporter], statements: &[String]) -> Result<(), Status> {
    let stated = all_forms(exporters)?;
    for exporter in exporters.iter().filter(|exporter| is_archive(exporter) && !statements.is_empty()) {
        let fits = match packing(exporter)? {
            Packing::Plain => false,
            Packing::Compressed(form) => form.is_none() || form == stated,
        };
        if !fits {
            return Err(Status::unsupported(format!(
                "compression={} of the exporter {} is not supported where something is stated about the result: leave out \
                 --provenance and --sbom, or the compression",
                attribute(exporter, "compression"),
                exporter.kind
            )));
        }
    }
    Ok(())
}

/// Whether an index of the result is needed that has no name here: what is stated about it is in that.
pub(crate) fn needs_passing(exporters: &[Exporter], statements: &[String]) -> bool {
    !statements.is_empty() && exporters.iter().any(|exporter| !makes_image(exporter))
}

/// Names that the result has in archives alone.
pub(crate) fn elsewhere(exporters: &[Exporter]) -> Vec<Reference> {
    exporters
        .iter()
        .filter(|exporter| is_archive(exporter))
        .flat_map(names)
        .filter_map(|name| Reference::parse(name).ok())
        .collect()
}

/// `annotation.KEY`, `annotation-index.KEY`, `annotation[linux/amd64].KEY`, as `--annotation` has them.
pub(crate) fn annotations<'a>(exporters: impl IntoIterator<Item = &'a Exporter>) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in exporters.into_iter().flat_map(|exporter| &exporter.attrs) {
        let Some(rest) = name.strip_prefix("annotation") else { continue };
        let Some((kind, key)) = rest.split_once('.') else { continue };
        let kind = kind.trim_start_matches('-');
        let annotation = match kind {
            "" => format!("{key}={value}"),
            kind if kind.starts_with('[') => format!("manifest{kind}:{key}={value}"),
            kind => format!("{kind}:{key}={value}"),
        };
        if !all.contains(&annotation) {
            all.push(annotation);
        }
    }
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(kind: &str, attrs: &[(&str, &str)]) -> Exporter {
        let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Exporter { kind: kind.into(), attrs }
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (kind, attribute, named) in [
            ("moby", ("dangling-name-prefix", "x"), "dangling-name-prefix"),
            ("moby", ("compression", "estargz"), "compression=estargz"),
            ("moby", ("compression", "uncompressed"), "compression=uncompressed"),
            ("oci", ("compression", "foo"), "gzip and zstd, and uncompressed"),
            ("image", ("push", "true"), "tag is needed"),
            ("cloud", ("a", "b"), "\"cloud\""),
        ] {
            let refused = check(&[exporter(kind, &[attribute])]).unwrap_err();
            assert!(refused.message().contains(named), "{}", refused.message());
        }
        check(&[exporter("moby", &[("push", "true"), ("name", "a"), ("unpack", "true")]), exporter("local", &[])])
            .unwrap();
    }

    #[test]
    fn what_only_one_of_several_is_to_have_is_refused() {
        let noted = |kind: &str| exporter(kind, &[("annotation.a", "1")]);
        check(&[noted("oci"), noted("moby"), exporter("local", &[])]).unwrap();
        assert!(
            check(&[noted("oci"), exporter("docker", &[])]).unwrap_err().message().contains("different annotations")
        );
        let zstd = exporter("moby", &[("compression", "zstd")]);
        check(&[zstd.clone(), exporter("oci", &[])]).unwrap();
        assert!(check(&[zstd, exporter("moby", &[])]).unwrap_err().message().contains("different forms"));
    }

    #[test]
    fn layers_of_archives_are_compressed_unless_that_is_not_wanted() {
        for (attrs, expected) in [
            (&[][..], Packing::Compressed(None)),
            (&[("compression", "gzip")], Packing::Compressed(None)),
            (&[("compression", "gzip"), ("force-compression", "true")], Packing::Compressed(Some(Form::Gzip))),
            (&[("compression", "zstd")], Packing::Compressed(Some(Form::Zstd))),
            (&[("compression", "uncompressed")], Packing::Plain),
        ] {
            assert_eq!(packing(&exporter("oci", attrs)).unwrap(), expected);
        }
    }

    #[test]
    fn what_goes_by_its_digest_has_no_tag() {
        let by_digest = |name: &str| exporter("moby", &[("push-by-digest", "true"), ("name", name)]);
        let all = all_repositories(&[by_digest("h.example/a,h.example/b"), by_digest("h.example/a")]).unwrap();
        assert_eq!(all.iter().map(Reference::name).collect::<Vec<_>>(), ["h.example/a", "h.example/b"]);
        assert!(check(&[by_digest("a:1")]).unwrap_err().message().contains("can't push tagged ref"));
    }

    #[test]
    fn names_are_what_is_between_commas() {
        let named = |text: &str| exporter("moby", &[("push", "true"), ("name", text)]);
        assert_eq!(names(&named("a:1, h.example/b ,,")).collect::<Vec<_>>(), ["a:1", "h.example/b"]);
        assert!(check(&[named(" ,")]).unwrap_err().message().contains("tag is needed"));
    }

    #[test]
    fn annotations_are_read_from_the_options() {
        let all = [exporter(
            "moby",
            &[("annotation.a", "1"), ("annotation-index.b.c", "2"), ("annotation[linux/amd64].d", "3")],
        )];
        assert_eq!(annotations(&all), ["a=1", "index:b.c=2", "manifest[linux/amd64]:d=3"]);
    }
}
