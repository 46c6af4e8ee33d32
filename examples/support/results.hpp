// SPDX-License-Identifier: MIT
#pragma once
// What finished jobs of a study left behind: one small JSON file each.

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// What a job found out.
struct outcome {
  std::string job;
  std::map<std::string, double> figures;            ///< such as "bits", "seconds", "sst2"
  std::vector<std::pair<double, double>> held_out;  ///< step, bits per byte
  std::map<std::string, std::string> texts{};       ///< such as what a model wrote
  std::map<std::string, std::string> settings{};    ///< of some jobs alone, such as "tasks"

  /// A figure, or not a number.
  double operator[](const std::string& figure) const;
};

/// The finished jobs of a folder, by name.
class results {
 public:
  /// Reads FOLDER/*.json; refuses files that are not results or of other settings. `some` are the
  /// present settings of some jobs alone. What it does not name has to be alike in all results.
  static results read(const std::string& folder, std::string_view settings,
                      std::map<std::string, std::string> some = {});

  const outcome* find(const std::string& job) const;
  /// Writes FOLDER/JOB.json at once: a reader sees all of it or nothing, and it is on the disk.
  /// Figures that are not finite are left out, as JSON has no such numbers.
  static void write(const std::string& folder, std::string_view settings, const outcome& o);

 private:
  std::map<std::string, outcome> all_;
};

/// A figure over several seeds.
struct statistics {
  int runs = 0;
  double most = 0, least = 0, mean = 0;
  double deviation = 0;  ///< with n - 1; not a number for one run
};
std::optional<statistics> statistics_of(const std::vector<double>& values);
/// The upper one for an even number.
double median(std::vector<double> values);

}  // namespace support
