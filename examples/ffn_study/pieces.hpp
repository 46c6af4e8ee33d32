// SPDX-License-Identifier: MIT
#pragma once
// What models learn from: i.i.d. denoising of text, and the tasks of GLUE as text.

#include <array>
#include <linnet/data/denoising_stream.hpp>
#include <linnet/data/glue.hpp>
#include <linnet/data/pair_stream.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reading.hpp"

namespace study {

/// I.i.d. denoising of 15% of windows of `length` ids. A target has room for half of them, which
/// one window in thousands would exceed.
using denoising_examples = ln::denoising_stream<window_source>;
denoising_examples denoise(const readable& text, const reader& by, ln::index batch,
                           ln::index length, std::uint64_t seed);

/// Bytes of text that the labels of a batch ask for.
ln::index masked_bytes(const ln::t5_batch& b, const reader& by);

/// A task with what there is to learn it from and to be asked.
struct task {
  ln::text_task words;
  std::vector<ln::text_pair> training;
  struct exam {
    std::string name;  ///< of the figure: "sst2", "mnli-m", "mnli-mm"
    std::vector<ln::text_pair> pairs;
  };
  std::vector<exam> exams;
  ln::index left_out = 0;    ///< lines of its files that are torn, which QQP has
  bool judged_only = false;  ///< not tuned on: WNLI, as in T5's mixture
};
inline constexpr std::array<std::string_view, 2> task_names{"sst2", "mnli"};
/// The tasks of GLUE. All but WNLI are tuned on together, as one, under the name "glue".
inline constexpr std::array<std::string_view, 9> glue_names{"cola", "sst2", "mrpc", "stsb", "qqp",
                                                            "mnli", "qnli", "rte",  "wnli"};
/// The folder of a task's training set in the data folder.
std::string folder_of(const std::string& data, std::string_view name);
/// Reads a task from sst2, or from mnli_train10k, mnli_m_dev and mnli_mm_sample1000.
task read_task(const std::string& folder, std::string_view name);
/// Reads a task of GLUE whole, as the benchmark has it: glue/MNLI/train.tsv and so on, its exam the
/// dev.tsv, whose answers are public. Without these, SST-2, MNLI and CoLA are read from sst2,
/// mnli_train10k and cola. Nothing where neither is there.
std::optional<task> read_glue(const std::string& folder, std::string_view name);
/// What a mixture is made of, for each task its examples to learn from and to be asked: "cola
/// 8551+1043, mnli 392702+9815+9832".
std::string mixture_of(const std::vector<task>& tasks);
/// The exam's figure in hundredths: what GLUE's mean is made of, of STS-B both correlations' mean.
/// The latter is NaN where all answers are equal, or all that are right.
double exam_figure(const task& t, const std::vector<ln::index>& given, const task::exam& e);

}  // namespace study
