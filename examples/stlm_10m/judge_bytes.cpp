// SPDX-License-Identifier: MIT
#include "judging.hpp"

void stlm_10m::judge_bytes(const options& o) { judge<ln::zoo::stlm_10m_bytes>(o); }
