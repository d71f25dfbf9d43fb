// SPDX-License-Identifier: BSD-2-Clause
// Precompiled for the monitor and its clients: the JSON library, above all. Only there to build
// faster; every file includes what it needs.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>
