// SPDX-License-Identifier: BSD-2-Clause
// Precompiled for the library's own files: what nearly all of them include. Only there to build
// faster; every file includes what it needs (scripts/check-clang builds without it).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <expected>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>
