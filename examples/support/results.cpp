// SPDX-License-Identifier: MIT
#include "results.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <linnet/core/finite.hpp>
#include <linnet/file/file.hpp>
#include <nlohmann/json.hpp>

#include "basics.hpp"

namespace support {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

void agree(std::string_view found, std::string_view expected) {
  if (found != expected)
    throw failure(fmt::format("of \"{}\", not \"{}\": give another --out", found, expected));
}

}  // namespace

double outcome::operator[](const std::string& figure) const {
  const auto at = figures.find(figure);
  return at == figures.end() ? std::numeric_limits<double>::quiet_NaN() : at->second;
}

results results::read(const std::string& folder, std::string_view settings,
                      std::map<std::string, std::string> some) {
  results r;
  std::error_code none;
  for (const auto& file : fs::directory_iterator(folder, none)) {
    if (file.path().extension() != ".json") continue;
    const auto bytes = take(linnet::read_file(file.path().string()));
    if (bytes.size() == 0) continue;  // lost with the power: the job runs again
    try {
      const json j =
          json::parse(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
      outcome o;
      j.at("job").get_to(o.job);
      // null is a number that was not finite.
      for (const auto& [name, figure] : j.at("figures").items())
        if (!figure.is_null()) figure.get_to(o.figures[name]);
      for (const json& point : j.at("held_out"))
        if (!point.at(1).is_null()) o.held_out.push_back(point.get<std::pair<double, double>>());
      j.at("texts").get_to(o.texts);
      if (j.contains("own_settings")) j.at("own_settings").get_to(o.settings);
      agree(j.at("settings").get<std::string>(), settings);
      for (const auto& [name, own] : o.settings)
        agree(own, some.try_emplace(name, own).first->second);
      if (o.job != file.path().stem()) throw failure("names another job");
      r.all_[o.job] = std::move(o);
    } catch (const std::exception& e) {
      throw failure(
          fmt::format("{}: not a result of this study ({})", file.path().string(), e.what()));
    }
  }
  return r;
}

const outcome* results::find(const std::string& job) const {
  const auto at = all_.find(job);
  return at == all_.end() ? nullptr : &at->second;
}

void results::write(const std::string& folder, std::string_view settings, const outcome& o) {
  const auto is_nothing = [](const auto& figure) { return !linnet::is_finite(figure.second); };
  auto figures = o.figures;
  auto held_out = o.held_out;
  std::erase_if(figures, is_nothing);
  std::erase_if(held_out, is_nothing);
  json j{{"job", o.job},
         {"settings", settings},
         {"figures", figures},
         {"held_out", held_out},
         {"texts", o.texts}};
  if (!o.settings.empty()) j["own_settings"] = o.settings;
  const std::string text = j.dump(1) + "\n", path = folder + "/" + o.job + ".json";
  take(linnet::write_file(path, std::as_bytes(std::span(text))));
}

std::optional<statistics> statistics_of(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  const auto n = static_cast<double>(values.size());
  statistics s{.runs = static_cast<int>(values.size()),
               .most = *std::max_element(values.begin(), values.end()),
               .least = *std::min_element(values.begin(), values.end())};
  for (const double v : values) s.mean += v / n;
  for (const double v : values) s.deviation += (v - s.mean) * (v - s.mean);
  s.deviation = values.size() > 1 ? std::sqrt(s.deviation / (n - 1))
                                  : std::numeric_limits<double>::quiet_NaN();
  return s;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace support
