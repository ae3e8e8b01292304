//! The `#[handler]` attribute of guest-sdk; use it as `guest_sdk::handler`.
//!
//! It only has to find the function's name, so it reads the tokens itself: a guest's first build is not spent on a parser.

use proc_macro::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

/// Makes a function the handler of this guest: it is called once for each request.
///
/// The function takes a `Request` and returns anything that is `IntoResponse`. It stays an ordinary function, so that tests can
/// call it. There is one handler in a guest, and it blocks: there is no `async`.
///
/// ```text
/// #[handler]
/// fn hello(_req: Request) -> Response {
///     Response::new(Body::new("Hello World!"))
/// }
/// ```
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if let Some(argument) = arguments.into_iter().next() {
        return error(argument.span(), "`#[handler]` takes no arguments");
    }
    let (name, serve) = match function(item.clone()) {
        Ok(function) => function,
        Err((span, message)) => return error(span, message),
    };
    // The name keeps its span: a type error points at the function, not at the attribute.
    let mut arguments = TokenStream::from(TokenTree::Ident(name));
    arguments.extend(parse(&format!(", {serve}")));
    let mut expansion = parse(
        "#[allow(clippy::needless_pass_by_value, reason = \"a handler takes its request by value, whatever it does with it\")]",
    );
    expansion.extend(item);
    expansion.extend(parse("::guest_sdk::__handler!"));
    expansion.extend([
        TokenTree::Group(Group::new(Delimiter::Parenthesis, arguments)),
        TokenTree::Punct(Punct::new(';', Spacing::Alone)),
    ]);
    expansion
}

/// The function's name, and how to call it.
///
/// A handler that never mentions its request (`_: Request`, or `_req` and the body has no `_req`) is served without reading it from the host.
/// That spares six calls into the host and half of the code: nothing parses URIs and header names.
fn function(item: TokenStream) -> Result<(Ident, &'static str), (Span, &'static str)> {
    let mut tokens = item.into_iter();
    let mut last = Span::call_site();
    let name = loop {
        let Some(token) = tokens.next() else {
            return Err((last, NOT_A_FUNCTION));
        };
        last = token.span();
        let TokenTree::Ident(word) = token else {
            continue;
        };
        match word.to_string().as_str() {
            "async" => {
                return Err((last, "a handler is a plain `fn`: it may block, so it needs no `async`"));
            }
            "struct" | "enum" | "impl" | "mod" | "trait" | "static" | "type" | "use" => {
                return Err((last, NOT_A_FUNCTION));
            }
            "fn" => match tokens.next() {
                Some(TokenTree::Ident(name)) => break name,
                _ => return Err((last, NOT_A_FUNCTION)),
            },
            _ => {}
        }
    };
    let parameters = tokens.next().map(|token| token.to_string()).unwrap_or_default();
    let parameter = parameters.trim_matches(['(', ')', ' ']).split(':').next().unwrap_or_default().trim().to_owned();
    let body = tokens.last().map(|token| token.to_string()).unwrap_or_default();
    let unread = parameter == "_" || (parameter.starts_with('_') && !body.contains(&parameter));
    Ok((name, if unread { "serve_unread" } else { "serve" }))
}

const NOT_A_FUNCTION: &str = "`#[handler]` belongs on a function: `fn name(request: Request) -> Response`";

/// A `compile_error!` that points at `span`.
fn error(span: Span, message: &str) -> TokenStream {
    parse(&format!("compile_error!({message:?});"))
        .into_iter()
        .map(|mut token| {
            token.set_span(span);
            token
        })
        .collect()
}

fn parse(source: &str) -> TokenStream {
    // What is parsed here is written in this file and valid Rust.
    source.parse().unwrap_or_default()
}
