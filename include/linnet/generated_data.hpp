// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: training data that a teacher writes, by the methods of docs/generated-data.md. Needs
/// nlohmann/json, which reads recorded answers.

#include <linnet/data/instruction_stream.hpp>
#include <linnet/distill/augmentation.hpp>
#include <linnet/distill/instructions.hpp>
#include <linnet/distill/program_search.hpp>
#include <linnet/distill/rationales.hpp>
#include <linnet/distill/recorded_answers.hpp>
#include <linnet/distill/session_teacher.hpp>
