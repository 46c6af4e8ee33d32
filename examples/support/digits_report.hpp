// SPDX-License-Identifier: MIT
#pragma once
// The report of the example digits: what models of images made of test images, on one page.

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "digit_images.hpp"
#include "html.hpp"
#include "plot.hpp"
#include "results.hpp"

namespace report {
namespace ln = linnet;
namespace di = digit_images;

/// Captions of the test scenes.
struct captions {
  std::vector<ln::token> tokens{};
  double nats = 0;                        ///< of a caption
  double nats_of_others = 0;              ///< behind the image of another scene, or 0
  double digit = 0, place = 0, both = 0;  ///< shares that are right
};

/// One entry for each seed.
struct results {
  ln::index train = 0, test = 0;
  bool drawn = false;
  std::vector<double> classifier{};
  std::vector<captions> text{}, shuffled{}, prefixed{}, causal{};
  std::vector<float> redrawn{};  ///< [test, 16, 16]
};

struct named_captions {
  const char* name;
  const std::vector<captions>& of;
};
inline std::vector<named_captions> rows_of(const results& r) {
  return {{"text alone", r.text},
          {"linear map, prefix, images of other scenes", r.shuffled},
          {"linear map, prefix", r.prefixed},
          {"unshuffle, MLP, causal", r.causal}};
}

/// What one training gave, as text.
inline std::string line(const std::string& name, const captions& made) {
  return fmt::format("{:<15} {:.3f} nats, digit {:5.1f} %, place {:5.1f} %, both {:5.1f} %", name,
                     made.nats, 100 * made.digit, 100 * made.place, 100 * made.both);
}

/// A figure of all seeds: its mean, and the standard deviation where there is one.
inline std::string over_seeds(const std::vector<double>& values, double times, int decimals) {
  const auto s = *support::statistics_of(values);
  if (s.runs < 2) return fmt::format("{:.{}f}", times * s.mean, decimals);
  return fmt::format("{:.{}f} ± {:.{}f}", times * s.mean, decimals, times * s.deviation, decimals);
}
/// All seeds as a table in Markdown: means and standard deviations.
inline std::string table(const results& r) {
  std::string text = fmt::format(
      "| Model | Seeds | Nats per caption | Nats behind another image | Digit right, % "
      "| Place right, % | Both right, % |\n| --- | --- | --- | --- | --- | --- | --- |\n"
      "| encoder that names digits | {} | – | – | {} | – | – |\n",
      r.classifier.size(), over_seeds(r.classifier, 100, 1));
  for (const auto& [name, of] : rows_of(r)) {
    const auto cell = [&, &all = of](double captions::*figure, double times, int decimals) {
      std::vector<double> values;
      for (const captions& one : all) values.push_back(one.*figure);
      return over_seeds(values, times, decimals);
    };
    text += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", name, of.size(),
                        cell(&captions::nats, 1, 3),
                        of.back().nats_of_others > 0 ? cell(&captions::nats_of_others, 1, 3) : "–",
                        cell(&captions::digit, 100, 1), cell(&captions::place, 100, 1),
                        cell(&captions::both, 100, 1));
  }
  return text;
}

/// Mean squared errors of pixels: of the codebook, and of the mean image.
struct code_errors {
  double codes = 0, mean_image = 0;
};
inline code_errors errors_of(const results& r, const di::scenes& s) {
  constexpr std::size_t n = di::scene_side * di::scene_side;
  std::vector<double> mean(n);
  const double count = static_cast<double>(s.pixels.size());
  for (std::size_t i = 0; i < s.pixels.size(); ++i)
    mean[i % n] += static_cast<double>(s.pixels[i]) * static_cast<double>(n) / count;
  code_errors e;
  for (std::size_t i = 0; i < s.pixels.size(); ++i) {
    const double x = static_cast<double>(s.pixels[i]);
    e.codes += std::pow(x - static_cast<double>(r.redrawn[i]), 2) / count;
    e.mean_image += std::pow(x - mean[i % n], 2) / count;
  }
  return e;
}
inline std::string error_of_codes(const results& r, const di::scenes& s) {
  const code_errors e = errors_of(r, s);
  return fmt::format("codes: squared error {:.4f}, of the mean image {:.4f}\n", e.codes,
                     e.mean_image);
}

/// An image of shades from 0 to 1 that a page holds.
inline std::string drawn_image(const float* pixels, ln::index side, const std::string& words) {
  std::string file;  // BMP: its header, 24 bits a pixel, the last row first
  const auto number = [&](std::uint32_t n, int bytes) {
    for (int i = 0; i < bytes; ++i) file += static_cast<char>(n >> (8 * i) & 255);
  };
  const auto sides = static_cast<std::uint32_t>(side), row = (3 * sides + 3) / 4 * 4;
  file = "BM";
  for (const std::uint32_t n : {54 + row * sides, 0u, 54u, 40u, sides, sides}) number(n, 4);
  number(1, 2), number(24, 2);
  for (int i = 0; i < 6; ++i) number(0, 4);
  for (ln::index y = side; y-- > 0;) {
    for (ln::index x = 0; x < side; ++x) {
      const double shade = static_cast<double>(pixels[y * side + x]);
      const double bounded = std::min(std::max(shade, 0.0), 1.0);
      for (int c = 0; c < 3; ++c) number(static_cast<std::uint32_t>(255 * bounded + 0.5), 1);
    }
    number(0, static_cast<int>(row - 3 * sides));
  }
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  while (file.size() % 3 != 0) file += '\0';  // behind the pixels nobody reads
  for (std::size_t i = 0; i < file.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 3; ++j) bits = bits << 8 | static_cast<unsigned char>(file[i + j]);
    for (int shift = 18; shift >= 0; shift -= 6) text += digits[bits >> shift & 63];
  }
  return fmt::format(R"(<img alt="{}" src="data:image/bmp;base64,{}">)", words, text);
}

inline std::string spread(const std::vector<captions>& of, double captions::*figure, double times,
                          int decimals) {
  std::vector<double> values;
  for (const captions& one : of) values.push_back(times * (one.*figure));
  const auto s = *support::statistics_of(values);
  if (s.runs < 2) return fmt::format("{:.{}f}", s.mean, decimals);
  return fmt::format("{:.{}f} <small>± {:.{}f}</small>", s.mean, decimals, s.deviation, decimals);
}

inline std::string html(const results& r, const di::scenes& s) {
  constexpr std::string_view style =
      ".shown { display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: "
      "14px; }"
      ".shown div { display: grid; grid-template-columns: 72px 72px 1fr; gap: 10px; align-items: "
      "center;"
      " font-size: 13px; } .shown img { width: 72px; height: 72px; image-rendering: pixelated;"
      " border-radius: 6px; } .shown b { color: var(--accent); } .shown + p { margin: 24px 0 14px; "
      "}";
  const auto mean = *support::statistics_of(r.classifier);
  const captions& best = r.prefixed.back();
  const code_errors errors = errors_of(r, s);
  std::string body = fmt::format(
      "<header><p class=\"brand\">linnet</p><h1>Digits, seen and said</h1><p class=\"lead\">Models "
      "of images trained on {} {} digits and tested on {} others, with {} seed{}.</p></header>\n"
      "<div class=\"tiles\">",
      r.train, r.drawn ? "drawn" : "handwritten", r.test, r.classifier.size(),
      r.classifier.size() == 1 ? "" : "s");
  body += support::tile("An encoder names", fmt::format("{:.1f}", 100 * mean.mean), "%",
                        "of the test digits; mean of the seeds");
  body += support::tile("A decoder captions", fmt::format("{:.1f}", 100 * best.both), "%",
                        "digit and place right; last seed");
  body += support::tile("Text alone captions", fmt::format("{:.1f}", 100 * r.text.back().both), "%",
                        "no image; chance is 2.5 %");
  body += support::tile("16 codes an image", fmt::format("{:.4f}", errors.codes), "",
                        fmt::format("squared error; of the mean image {:.4f}", errors.mean_image));
  std::string table =
      "<div class=\"scroll\"><table><thead><tr><th>Decoder</th><th>nats per caption</th>"
      "<th>digit %</th><th>place %</th><th>both %</th><th>nats, image of another</th></tr></thead>"
      "<tbody>";
  for (const auto& [name, of] : rows_of(r))
    table += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", name,
        spread(of, &captions::nats, 1, 3), spread(of, &captions::digit, 100, 1),
        spread(of, &captions::place, 100, 1), spread(of, &captions::both, 100, 1),
        of.back().nats_of_others > 0 ? spread(of, &captions::nats_of_others, 1, 3) : "–");
  table += "</tbody></table></div>";
  body += "</div>" +
          support::section("Captions",
                           "What digit, where: mean and standard deviation of the seeds. Digits "
                           "and places are equally likely, so a text alone needs 3.689 nats.",
                           table);
  std::string images = "<div class=\"shown\">";
  constexpr ln::index size = di::scene_side * di::scene_side;
  const auto wrong = [&](ln::index i) {
    const auto at = i * di::caption_length;
    return !std::equal(best.tokens.begin() + at, best.tokens.begin() + at + di::caption_length,
                       s.labels.begin() + at);
  };
  const auto show = [&](ln::index i) {
    const std::string truth = di::spelled(s.labels.data() + i * di::caption_length);
    const std::string said = di::spelled(best.tokens.data() + i * di::caption_length);
    images += fmt::format("<div>{}{}<span>{}{}</span></div>",
                          drawn_image(s.pixels.data() + i * size, di::scene_side, truth),
                          drawn_image(r.redrawn.data() + i * size, di::scene_side, "from codes"),
                          support::escaped(said),
                          wrong(i) ? "<br><b>not " + support::escaped(truth) + "</b>" : "");
  };
  for (ln::index i = 0, n = 0; i < s.size() && n < 24;
       i += (std::max)(s.size() / 24, ln::index{1}), ++n)
    show(i);
  images += "</div><p class=\"about\">And captions that are wrong:</p><div class=\"shown\">";
  for (ln::index i = 0, n = 0; i < s.size() && n < 8; ++i)
    if (wrong(i)) show(i), ++n;
  body += support::section("Test scenes",
                           "The image, the image of its 16 codes, and the caption of the prefix "
                           "decoder, last seed.",
                           images + "</div>");
  return support::html_page("digits", style, body);
}

}  // namespace report
