// SPDX-License-Identifier: MIT
#pragma once
// Parts of the command line that several commands have, and the commands that stand in files of
// their own.

#include <CLI/CLI.hpp>

#include "commands.hpp"

namespace zoo {

void add_threads(CLI::App& command, int& threads);
void add_seed(CLI::App& command, std::uint64_t& seed);

void add_compress(CLI::App& app, compress_options& o);
void add_train(CLI::App& app, train_options& o);
void add_finetune(CLI::App& app, train_options& o);
void add_distil(CLI::App& app, train_options& o);
void add_sweep(CLI::App& app, report_options& o);
void add_quickstart(CLI::App& app, report_options& o);

}  // namespace zoo
