/// What is wrong with a template, or with the value it was applied to; in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not a template.
    #[error("template: {file}:{line}: {message}")]
    Parse {
        /// The name of the whole template.
        file: String,
        /// Line in the text.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The value does not have what the template asks for.
    #[error("template: {file}:{line}:{column}: executing {name:?} at <{context}>: {message}")]
    Execute {
        /// The name of the whole template.
        file: String,
        /// Line in the text.
        line: usize,
        /// Byte in the line.
        column: usize,
        /// The template, if it is a named one.
        name: String,
        /// The part that failed.
        context: String,
        /// What is wrong.
        message: String,
    },
}
