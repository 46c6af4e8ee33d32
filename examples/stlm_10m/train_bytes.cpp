// SPDX-License-Identifier: MIT
#include "training.hpp"

void stlm_10m::train_bytes(const options& o) { train<ln::zoo::stlm_10m_bytes>(o); }
