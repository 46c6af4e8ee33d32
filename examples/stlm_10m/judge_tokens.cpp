// SPDX-License-Identifier: MIT
#include "judging.hpp"

void stlm_10m::judge_tokens(const options& o) { judge<ln::zoo::stlm_10m>(o); }
