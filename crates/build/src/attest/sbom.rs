//! What software is in an image, as an SPDX 2.3 document. The same image has the same document.

use serde_json::{Value, json};
use wharf_image::{ImageRecord, is_passing};

use super::packages::{Found, Package};

/// What BuildKit's scanners call it.
pub(super) const KIND: &str = "https://spdx.dev/Document";
const NONE: &str = "NOASSERTION";

pub(super) fn document(image: &ImageRecord, found: &Found) -> Value {
    let root = "SPDXRef-Image";
    let mut packages = vec![json!({
        "name": image.tags.iter().find(|tag| !is_passing(tag)).map_or_else(|| image.id.to_string(), Clone::clone),
        "SPDXID": root,
        "versionInfo": image.id,
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": image.id.hex() }],
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
    })];
    let relation = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", root)];
    for (number, package) in found.packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{}-{}", package.kind, number + 1);
        packages.push(entry(&id, package));
        relations.push(relation(root, "CONTAINS", &id));
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image.id,
        "documentNamespace": format!("urn:wharf:sbom:sha256:{}", image.id.hex()),
        "creationInfo": {
            "created": created(&image.created),
            "creators": [format!("Tool: wharf-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relations,
    });
    if !found.unread.is_empty() {
        document["comment"] = json!(format!("Databases of packages that were not read: {}", found.unread.join(", ")));
    }
    document
}

fn entry(id: &str, package: &Package) -> Value {
    let mut entry = json!({
        "name": package.name,
        "SPDXID": id,
        "versionInfo": package.version,
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "sourceInfo": format!("from /{}", package.from.display()),
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.url,
        }],
    });
    if !package.license.is_empty() {
        // What packages say is seldom an expression of SPDX's.
        entry["licenseComments"] = json!(format!("declared by the package: {}", package.license));
    }
    if !package.supplier.is_empty() {
        entry["supplier"] = json!(format!("Person: {}", package.supplier));
    }
    entry
}

/// A time without parts of seconds, as SPDX wants it (2.3, clause 6.9).
fn created(text: &str) -> String {
    let moment: jiff::Timestamp = text.parse().unwrap_or_default();
    jiff::Timestamp::from_second(moment.as_second()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_whole_seconds() {
        assert_eq!(created("2024-05-06T07:08:09.123456789Z"), "2024-05-06T07:08:09Z");
        assert_eq!(created("nonsense"), "1970-01-01T00:00:00Z");
    }
}
