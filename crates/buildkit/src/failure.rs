//! Failures of builds in BuildKit's words, with the lines that its clients show.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use wharf_build::{BuildError, ErrorKind};
use wharf_dockerfile::LintFailure;

use crate::grpc::{Code, Status};
use crate::proto::Any;

/// The details of errors are JSON under such types: moby/buildkit `util/grpcerrors`, `solver/errdefs`.
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
const SUBREQUEST: &str = "github.com/moby/buildkit/errdefs.Subrequest+json";

/// What failed.
pub(crate) fn words(error: &BuildError) -> String {
    match (&error.command, error.exit_code) {
        (Some(command), Some(code)) => {
            let killed = if error.message.ends_with("(out of memory)") { " (out of memory)" } else { "" };
            format!("process {command:?} did not complete successfully: exit code: {code}{killed}")
        }
        // By these words clients know what was called off.
        _ if error.kind == ErrorKind::Cancelled => "context canceled".into(),
        _ => error.message.clone(),
    }
}

/// A failed build as a failed call.
pub(crate) fn status(error: &BuildError) -> Status {
    let code = match error.kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Command | ErrorKind::System => Code::Unknown,
    };
    // BuildKit's are of no kind, and its clients write a kind before the message.
    let code = if code == Code::Cancelled { code } else { Code::Unknown };
    let status = Status::new(code, words(error));
    let Some(lines) = error.lines.as_ref().filter(|lines| !lines.text.is_empty()) else { return status };
    let detail = json!({
        "info": {
            "filename": lines.file,
            "data": STANDARD.encode(lines.text.as_bytes()),
            "language": "Dockerfile",
        },
        "ranges": [{ "start": { "line": lines.first }, "end": { "line": lines.last } }],
    });
    status.with(Any { type_url: SOURCE.into(), value: detail.to_string().into_bytes() })
}

/// A Dockerfile that cannot be read.
pub(crate) fn unreadable(errors: &wharf_dockerfile::ParseErrors, file: &str, text: &str) -> Status {
    broken(&LintFailure::from(errors), file, text)
}

/// A Dockerfile that cannot be built.
pub(crate) fn broken(failure: &LintFailure, file: &str, text: &str) -> Status {
    let mut error = BuildError::invalid(failure.message.clone());
    if let Some(span) = failure.spans.first() {
        let (first, last) = (span.line(), span.end_line.max(span.line()));
        error.lines = Some(Box::new(wharf_build::Lines { file: file.to_owned(), text: text.into(), first, last }));
    }
    status(&error)
}

/// A call of a build that is not known.
pub(crate) fn unsupported_call(name: &str) -> Status {
    let status = Status::unsupported(format!("unsupported request {name}"));
    status.with(Any { type_url: SUBREQUEST.into(), value: json!({ "name": name }).to_string().into_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_told_as_buildkit_does() {
        let mut error = BuildError::invalid("The command '/bin/sh -c false' returned a non-zero code: 1");
        (error.kind, error.exit_code, error.command) = (ErrorKind::Command, Some(1), Some("/bin/sh -c false".into()));
        let told = "process \"/bin/sh -c false\" did not complete successfully: exit code: 1";
        assert_eq!(status(&error).message(), told);
    }
}
