// SPDX-License-Identifier: BSD-2-Clause
// Our definitions against the system's <linux/vfio.h>, and the sizes that no header of any release
// may change. What an old header lacks is checked where a newer one has it.
#include <linux/vfio.h>

#include <cstddef>

#include "hw/vfio/mig-state.h"
#include "hw/vfio/uapi.h"

namespace ferry::vfio::uapi {

static_assert(kGetApiVersion == VFIO_GET_API_VERSION && kCheckExtension == VFIO_CHECK_EXTENSION);
static_assert(kSetIommu == VFIO_SET_IOMMU && kApiVersion == VFIO_API_VERSION);
static_assert(kMapDma == VFIO_IOMMU_MAP_DMA && kUnmapDma == VFIO_IOMMU_UNMAP_DMA);
static_assert(kType1GetInfo == VFIO_IOMMU_GET_INFO && kDirtyPages == VFIO_IOMMU_DIRTY_PAGES);
static_assert(kType1v2Iommu == VFIO_TYPE1v2_IOMMU);
static_assert(kGroupGetStatus == VFIO_GROUP_GET_STATUS);
static_assert(kGroupSetContainer == VFIO_GROUP_SET_CONTAINER);
static_assert(kGroupUnsetContainer == VFIO_GROUP_UNSET_CONTAINER);
static_assert(kGroupGetDeviceFd == VFIO_GROUP_GET_DEVICE_FD);
static_assert(kDeviceGetInfo == VFIO_DEVICE_GET_INFO);
static_assert(kDeviceGetRegionInfo == VFIO_DEVICE_GET_REGION_INFO);
static_assert(kDeviceGetIrqInfo == VFIO_DEVICE_GET_IRQ_INFO);
static_assert(kDeviceSetIrqs == VFIO_DEVICE_SET_IRQS && kDeviceReset == VFIO_DEVICE_RESET);
static_assert(kDeviceFeature == VFIO_DEVICE_FEATURE);

static_assert(kGroupViable == VFIO_GROUP_FLAGS_VIABLE);
static_assert(kGroupContainerSet == VFIO_GROUP_FLAGS_CONTAINER_SET);
static_assert(kDmaMapRead == VFIO_DMA_MAP_FLAG_READ && kDmaMapWrite == VFIO_DMA_MAP_FLAG_WRITE);
static_assert(kDmaUnmapGetDirtyBitmap == VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP);
static_assert(kDirtyPagesStart == VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
static_assert(kDirtyPagesStop == VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
static_assert(kDirtyPagesGetBitmap == VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP);
static_assert(kType1InfoCaps == VFIO_IOMMU_INFO_CAPS);
static_assert(kType1CapIovaRange == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE);
static_assert(kType1CapMigration == VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION);
static_assert(kDeviceCanReset == VFIO_DEVICE_FLAGS_RESET && kDeviceIsPci == VFIO_DEVICE_FLAGS_PCI);
static_assert(kRegionRead == VFIO_REGION_INFO_FLAG_READ);
static_assert(kRegionWrite == VFIO_REGION_INFO_FLAG_WRITE);
static_assert(kRegionMmap == VFIO_REGION_INFO_FLAG_MMAP);
static_assert(kRegionCaps == VFIO_REGION_INFO_FLAG_CAPS);
static_assert(kRegionCapSparseMmap == VFIO_REGION_INFO_CAP_SPARSE_MMAP);
static_assert(kIrqEventfd == VFIO_IRQ_INFO_EVENTFD && kIrqMaskable == VFIO_IRQ_INFO_MASKABLE);
static_assert(kIrqAutomasked == VFIO_IRQ_INFO_AUTOMASKED);
static_assert(kIrqNoresize == VFIO_IRQ_INFO_NORESIZE);
static_assert(kIrqDataNone == VFIO_IRQ_SET_DATA_NONE);
static_assert(kIrqDataEventfd == VFIO_IRQ_SET_DATA_EVENTFD);
static_assert(kIrqActionMask == VFIO_IRQ_SET_ACTION_MASK);
static_assert(kIrqActionUnmask == VFIO_IRQ_SET_ACTION_UNMASK);
static_assert(kIrqActionTrigger == VFIO_IRQ_SET_ACTION_TRIGGER);
static_assert(kFeatureGet == VFIO_DEVICE_FEATURE_GET && kFeatureSet == VFIO_DEVICE_FEATURE_SET);
static_assert(kFeatureProbe == VFIO_DEVICE_FEATURE_PROBE);
static_assert(kFeatureMigration == VFIO_DEVICE_FEATURE_MIGRATION);
static_assert(kFeatureMigDeviceState == VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE);
static_assert(kFeatureDmaLoggingStart == VFIO_DEVICE_FEATURE_DMA_LOGGING_START);
static_assert(kFeatureDmaLoggingStop == VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP);
static_assert(kFeatureDmaLoggingReport == VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT);
static_assert(kMigrationStopCopy == VFIO_MIGRATION_STOP_COPY);
static_assert(kMigrationP2p == VFIO_MIGRATION_P2P);

constexpr bool same(MigState ours, unsigned theirs) {
    return static_cast<unsigned>(ours) == theirs;
}
static_assert(same(MigState::Error, VFIO_DEVICE_STATE_ERROR));
static_assert(same(MigState::Stop, VFIO_DEVICE_STATE_STOP));
static_assert(same(MigState::Running, VFIO_DEVICE_STATE_RUNNING));
static_assert(same(MigState::StopCopy, VFIO_DEVICE_STATE_STOP_COPY));
static_assert(same(MigState::Resuming, VFIO_DEVICE_STATE_RESUMING));
static_assert(same(MigState::RunningP2P, VFIO_DEVICE_STATE_RUNNING_P2P));

static_assert(sizeof(GroupStatus) == 8 && sizeof(vfio_group_status) == 8);
static_assert(sizeof(DmaMap) == 32 && sizeof(vfio_iommu_type1_dma_map) == 32);
static_assert(sizeof(DmaUnmap) == 24 && offsetof(vfio_iommu_type1_dma_unmap, data) == 24);
static_assert(sizeof(DirtyBitmap) == 24 && sizeof(vfio_bitmap) == 24);
static_assert(sizeof(DmaUnmapDirty) == 48 && offsetof(DmaUnmapDirty, bitmap) == 24);
static_assert(sizeof(DirtyPages) == 8 && offsetof(vfio_iommu_type1_dirty_bitmap, data) == 8);
static_assert(sizeof(DirtyPagesGet) == 48 && offsetof(DirtyPagesGet, iova) == 8);
static_assert(sizeof(vfio_iommu_type1_dirty_bitmap_get) == 40);
static_assert(sizeof(Type1Info) == 24);  // 20 up to Linux 6.4
static_assert(offsetof(Type1Info, cap_offset) == offsetof(vfio_iommu_type1_info, cap_offset));
static_assert(sizeof(Type1MigrationCap) == 32);
static_assert(sizeof(vfio_iommu_type1_info_cap_migration) == 32);
static_assert(offsetof(Type1MigrationCap, pgsize_bitmap) ==
              offsetof(vfio_iommu_type1_info_cap_migration, pgsize_bitmap));
static_assert(sizeof(DeviceInfo) == 24);  // 20 up to Linux 6.4
static_assert(offsetof(DeviceInfo, cap_offset) == offsetof(vfio_device_info, cap_offset));
static_assert(sizeof(RegionInfo) == 32 && sizeof(vfio_region_info) == 32);
static_assert(offsetof(RegionInfo, cap_offset) == offsetof(vfio_region_info, cap_offset));
static_assert(offsetof(RegionInfo, offset) == offsetof(vfio_region_info, offset));
static_assert(sizeof(CapHeader) == 8 && sizeof(vfio_info_cap_header) == 8);
static_assert(sizeof(SparseMmapCap) == 16);
static_assert(offsetof(vfio_region_info_cap_sparse_mmap, areas) == 16);
static_assert(sizeof(SparseMmapArea) == 16 && sizeof(vfio_region_sparse_mmap_area) == 16);
static_assert(sizeof(IrqInfo) == 16 && sizeof(vfio_irq_info) == 16);
static_assert(sizeof(IrqSet) == 20 && offsetof(vfio_irq_set, data) == 20);
static_assert(sizeof(FeatureHeader) == 8 && offsetof(vfio_device_feature, data) == 8);
static_assert(sizeof(Migration) == 8 && sizeof(vfio_device_feature_migration) == 8);
static_assert(sizeof(MigDeviceState) == 8 && sizeof(vfio_device_feature_mig_state) == 8);
static_assert(offsetof(MigDeviceState, data_fd) ==
              offsetof(vfio_device_feature_mig_state, data_fd));
static_assert(sizeof(MigDataSize) == 8 && sizeof(PrecopyInfo) == 24);
static_assert(sizeof(DmaLoggingRange) == 16);
static_assert(sizeof(vfio_device_feature_dma_logging_range) == 16);
static_assert(sizeof(DmaLoggingControl) == 24);
static_assert(sizeof(vfio_device_feature_dma_logging_control) == 24);
static_assert(sizeof(DmaLoggingReport) == 32);
static_assert(sizeof(vfio_device_feature_dma_logging_report) == 32);
static_assert(sizeof(Feature<MigDeviceState>) == 16 && sizeof(Feature<DmaLoggingReport>) == 40);

#ifdef VFIO_MIG_GET_PRECOPY_INFO  // since Linux 6.2
static_assert(kMigGetPrecopyInfo == VFIO_MIG_GET_PRECOPY_INFO);
static_assert(sizeof(vfio_precopy_info) == sizeof(PrecopyInfo));
static_assert(kMigrationPreCopy == VFIO_MIGRATION_PRE_COPY);
static_assert(same(MigState::PreCopy, VFIO_DEVICE_STATE_PRE_COPY));
static_assert(same(MigState::PreCopyP2P, VFIO_DEVICE_STATE_PRE_COPY_P2P));
static_assert(kFeatureMigDataSize == VFIO_DEVICE_FEATURE_MIG_DATA_SIZE);
static_assert(sizeof(vfio_device_feature_mig_data_size) == sizeof(MigDataSize));
#endif

}  // namespace ferry::vfio::uapi
