//! Routes: the one that is found is the one that the rules say, tried one by one. A line for each route, an empty line, a line for each
//! request; host (or `-`) and path on each.

#![no_main]

use astra_host::router::{Route, Router};

fn parts(line: &str) -> Option<(Option<&str>, &str)> {
    let (host, path) = line.split_once(' ')?;
    Some(((host != "-").then_some(host), path))
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').skip(1).collect()
}

/// Two with the same match the same requests.
fn shape(route: &Route) -> (Option<&str>, Vec<&str>) {
    let segments =
        segments(&route.path).into_iter().map(|segment| if segment.starts_with(':') { ":" } else { segment });
    (route.host.as_deref(), segments.collect())
}

/// What each `:name` stands for, and `*`.
fn captures<'a>(route: &'a Route, path: &'a str) -> Option<(Vec<(&'a str, &'a str)>, Option<String>)> {
    let (mut pattern, path) = (segments(&route.path), segments(path));
    let is_open = pattern.pop_if(|last| *last == "*").is_some();
    let fits = if is_open { path.len() >= pattern.len() } else { path.len() == pattern.len() };
    let mut params = Vec::new();
    for (segment, part) in pattern.iter().zip(&path) {
        match segment.strip_prefix(':') {
            Some(name) if !part.is_empty() => params.push((name, *part)),
            None if segment == part => {}
            _ => return None,
        }
    }
    fits.then(|| (params, is_open.then(|| path[pattern.len()..].join("/"))))
}

/// The smaller the more specific: the host first, the longer the better; then the path from left to right.
fn rank(route: &Route) -> (u8, usize, Vec<u8>) {
    let host = match route.host.as_deref() {
        Some(host) if host.starts_with('*') => (1, usize::MAX - host.len()),
        Some(_) => (0, 0),
        None => (2, 0),
    };
    let kind = |segment: &str| match segment {
        "*" => 2,
        segment if segment.starts_with(':') => 1,
        _ => 0,
    };
    (host.0, host.1, segments(&route.path).into_iter().map(kind).collect())
}

fn is_for(route: &Route, host: &str) -> bool {
    match route.host.as_deref().map(|wanted| (wanted, wanted.strip_prefix('*'))) {
        None => true,
        Some((_, Some(suffix))) => host.len() > suffix.len() && host.ends_with(suffix),
        Some((wanted, None)) => host == wanted,
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (routes, requests) = text.split_once("\n\n").unwrap_or((text, "- /"));
    let routes: Vec<Route> =
        routes.lines().filter_map(parts).filter_map(|(host, path)| Route::parse(host, path).ok()).collect();
    for route in &routes {
        let again = Route::parse(route.host.as_deref(), &route.path);
        assert_eq!(again.as_ref(), Ok(route), "a route is not what it was read as");
    }
    let router = Router::new(routes.iter().map(|route| ("", std::slice::from_ref(route))));
    let is_double = |(at, route): (usize, &Route)| routes[..at].iter().any(|other| shape(other) == shape(route));
    assert_eq!(router.is_err(), routes.iter().enumerate().any(is_double), "{:?}", router.err());
    let Ok(router) = router else { return };
    for (host, path) in requests.lines().filter_map(parts).filter(|(_, path)| path.starts_with('/') || *path == "*") {
        let end = host.map_or(0, |host| host.find(']').map_or(host.find(':').unwrap_or(host.len()), |end| end + 1));
        let bare = host.unwrap_or_default()[..end].to_ascii_lowercase();
        let bare = bare.strip_suffix('.').unwrap_or(&bare);
        let bare = if bare.len() > 253 { "" } else { bare };
        let candidates = routes.iter().enumerate().filter(|(_, route)| is_for(route, bare));
        let expected = candidates.filter_map(|(at, route)| Some((rank(route), at, captures(route, path)?))).min();
        let found = router.find(host, path);
        assert_eq!(
            found.as_ref().map(|found| found.handler),
            expected.as_ref().map(|expected| expected.1),
            "{host:?} {path}"
        );
        let (Some(found), Some((_, at, (params, rest)))) = (found, expected) else { continue };
        assert_eq!(found.route, &routes[at]);
        assert_eq!(found.params().collect::<Vec<_>>(), params);
        assert_eq!(found.rest(), rest.as_deref());
        let script = &path[..found.script(path)];
        let rest = rest.map_or(String::new(), |rest| rest);
        assert!(path == format!("{script}{rest}") || path == format!("{script}/{rest}"), "{script} and {rest}");
    }
});
