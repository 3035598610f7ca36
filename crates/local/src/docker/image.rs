//! Images: what a name may be, and pulling one that is not there.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptions;
use futures_util::TryStreamExt;

use super::error::{self, Error};
use super::{Docker, Progress};

/// How long a registry may take until the first of an image comes.
const FIRST_LAYER: Duration = Duration::from_mins(10);

/// Refuses what cannot be an image's name, before it becomes part of a request's path.
pub(super) fn check(image: &str) -> Result<(), Error> {
    let refuse = |reason| {
        Err(Error::Image {
            image: image.to_owned(),
            reason,
        })
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
    if image.is_empty() {
        return refuse("it is empty");
    }
    if !image.chars().all(allowed) {
        return refuse("it may hold letters, digits and . _ - / : @");
    }
    if image.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse("between slashes there must be names");
    }
    let (name, tag) = split(image);
    if name.is_empty() || tag.is_empty() || tag.contains('/') {
        return refuse("it must be like name, name:tag or name@sha256:digest");
    }
    Ok(())
}

/// The name, and the tag or digest: without one, Docker would pull all the tags that there are.
fn split(image: &str) -> (&str, &str) {
    if let Some(parts) = image.split_once('@') {
        return parts;
    }
    match image.rsplit_once(':') {
        // What follows a colon and holds a slash is a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

impl Docker {
    /// Pulls the image if the daemon does not have it.
    pub(super) async fn ensure_image(
        &self,
        image: &str,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(), Error> {
        if self.has_image(image).await? {
            return Ok(());
        }
        progress(Progress::Pulling { image });
        let (name, tag) = split(image);
        let options = CreateImageOptions {
            from_image: Some(name.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        self.client
            .clone()
            .with_timeout(FIRST_LAYER)
            .create_image(Some(options), None, None)
            .try_for_each(|_| async { Ok(()) })
            .await
            .map_err(|err| Error::pull(image, &err))?;
        // The end of the stream does not prove success, since some daemons report errors in another form.
        if self.has_image(image).await? {
            progress(Progress::Pulled { image });
            Ok(())
        } else {
            Err(Error::Pull {
                image: image.to_owned(),
                detail: "the daemon ended the pull and does not have the image".to_owned(),
            })
        }
    }

    async fn has_image(&self, image: &str) -> Result<bool, Error> {
        match self.client.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(err) if error::is_status(&err, 404) => Ok(false),
            Err(err) => Err(Error::pull(image, &err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_their_tag() {
        assert_eq!(
            split("localstack/localstack:4.14"),
            ("localstack/localstack", "4.14")
        );
        assert_eq!(
            split("localstack/localstack"),
            ("localstack/localstack", "latest")
        );
        assert_eq!(split("registry:5000/a/b"), ("registry:5000/a/b", "latest"));
        assert_eq!(split("registry:5000/a/b:1"), ("registry:5000/a/b", "1"));
        assert_eq!(split("a/b@sha256:00ff"), ("a/b", "sha256:00ff"));
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_name() {
        for image in [
            "",
            "../containers/x",
            "a//b",
            "/a",
            "a?b",
            "a#b",
            "a b",
            "a:",
            ":1",
            "a@",
            "a@b/c",
            "ä",
            "a%2e",
        ] {
            let err = check(image).unwrap_err();
            assert!(
                matches!(&err, Error::Image { image: named, .. } if named == image),
                "{err:?}"
            );
        }
        for image in [
            "a",
            "localstack/localstack:4.14",
            "r:5000/a_b/c-d",
            "a@sha256:00ff",
        ] {
            check(image).unwrap();
        }
    }
}
