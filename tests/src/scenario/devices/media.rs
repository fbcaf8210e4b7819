//! A graphics card and its sound.

use anyhow::{Result, ensure};

use super::{MEDIA, config, run, says, with_words};
use crate::scenario::{Context, Scenario, Verdict};

const DRIVERS: &str = "bochs,snd_hda_codec_generic,snd_pcm_oss,snd_hda_intel";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "media",
        "a graphics card with bochs-drm shows a picture, a sound card plays two seconds",
        240,
        media,
    )]
}

fn media(lab: &Context) -> Result<Verdict> {
    let config = config(lab, &MEDIA, DRIVERS, "display,sound");
    run(lab, &MEDIA, &with_words(config, "iomem=relaxed"), |guest| {
        says(guest, "driver", "bochs-drm")?;
        guest.expect("mode")?;
        says(guest, "picture", "drawn")?;
        let codec = guest.expect("codec")?;
        ensure!(!codec.is_empty(), "The sound card has no codec");
        let interrupts: u32 = guest.expect("interrupts")?.parse()?;
        ensure!(
            interrupts >= 2,
            "Two seconds of sound took {interrupts} interrupts"
        );
        says(guest, "controller", "PCI-MSI")
    })
}
